"""Triton: ``tt_lookup_backward``."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.cuda.tt_half import product_gradients
from lit_gnncompress.kernels.cuda.tt_lookup import halves_of, parts_of
from lit_gnncompress.kernels.reference.tt_lookup_backward import tt_lookup_backward as reference


def tt_lookup_backward(
    grad: Tensor, cores: list[Tensor], perm: Tensor, left: Tensor, right: Tensor
) -> list[Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_lookup_backward.tt_lookup_backward`.

    Sums of the rows of a pair are taken in registers, by program, and put together in their order.
    Those of the first half are added by atomics, or sorted too where torch is to be deterministic.
    """
    dtype, slots = cores[0].dtype, perm.size(0)
    if dtype == torch.float64:
        return reference(grad, cores, perm, left, right)
    if slots == 0:
        return [torch.zeros_like(core, memory_format=torch.contiguous_format) for core in cores]
    deterministic = torch.are_deterministic_algorithms_enabled()
    total: list[Tensor] = []
    with torch.cuda.device_of(grad), torch.autocast("cuda", enabled=False):
        halves = halves_of(cores, slots)
        rows = grad.contiguous().view(slots, halves[0].height, -1)
        for part in parts_of(halves, slots):
            a, of_a = halves[0].matrices(left[part])
            b, of_b = halves[1].matrices(right[part])
            a = a.view(a.size(0), halves[0].height, -1)
            b = b.view(b.size(0), a.size(2), -1)
            found = product_gradients(
                a, b, of_a, of_b, rows, perm[part], deterministic, sorted_by_b=True
            )
            grads = [
                g
                for half, of_half, keys in zip(halves, found, (left, right), strict=True)
                for g in half.gradients(of_half, keys[part], deterministic)
            ]
            total = grads if not total else [t.add_(g) for t, g in zip(total, grads, strict=True)]
    return [t.to(dtype) for t in total]
