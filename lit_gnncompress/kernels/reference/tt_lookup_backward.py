"""Plain torch: ``tt_lookup_backward``, row by row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_gnncompress.kernels.reference.tt_lookup import digits_of


def tt_lookup_backward(
    grad: Tensor, cores: list[Tensor], perm: Tensor, left: Tensor, right: Tensor
) -> list[Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_lookup_backward.tt_lookup_backward`."""
    dtype = torch.float64 if cores[0].dtype == torch.float64 else torch.float32
    behind = math.prod(core.size(0) for core in cores[len(cores) // 2 :])
    digits = digits_of(left.long() * behind + right, cores)
    rows = perm.size(0)
    grad = grad.reshape(rows, math.prod(core.size(2) for core in cores)).to(dtype)[perm.long()]
    slices = [core.to(dtype)[digit] for core, digit in zip(cores, digits, strict=True)]
    found = []
    with torch.autocast(grad.device.type, enabled=False):
        for k, core in enumerate(cores):
            before = grad.new_ones(rows, 1, 1)
            for piece in slices[:k]:
                columns = before.size(1) * piece.size(2)
                before = (before @ piece.flatten(2)).reshape(rows, columns, piece.size(3))
            after = grad.new_ones(rows, 1, 1)
            for piece in slices[:k:-1]:
                columns = piece.size(2) * after.size(2)
                after = (piece.flatten(1, 2) @ after).reshape(rows, piece.size(1), columns)
            sides = rows, before.size(1), core.size(2), after.size(2)
            of_slices = torch.einsum("bpr,bpqs,bts->brqt", before, grad.view(sides), after)
            total = torch.zeros_like(core, dtype=dtype, memory_format=torch.contiguous_format)
            found.append(total.index_add_(0, digits[k], of_slices).to(core.dtype))
    return found
