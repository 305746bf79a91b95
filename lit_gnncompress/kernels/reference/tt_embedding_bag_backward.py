"""Plain torch: ``tt_embedding_bag_backward``, from the gradients of all rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_gnncompress.kernels.reference.tt_embedding_bag import bags_of
from lit_gnncompress.kernels.reference.tt_lookup import tt_lookup
from lit_gnncompress.kernels.reference.tt_lookup_backward import tt_lookup_backward


def tt_embedding_bag_backward(
    grad: Tensor,
    offsets: Tensor,
    weights: Tensor | None,
    cores: list[Tensor],
    perm: Tensor,
    left: Tensor,
    right: Tensor,
    to_weights: bool,
) -> tuple[list[Tensor], Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_embedding_bag_backward`."""
    dtype = torch.promote_types(cores[0].dtype, torch.float32)
    wide = [core.to(dtype) for core in cores]
    of_rows = grad.to(dtype)[bags_of(offsets)]
    of_weights = grad.new_empty(0)
    if to_weights:
        behind = math.prod(core.size(0) for core in cores[len(cores) // 2 :])
        indices = torch.empty_like(perm, dtype=torch.int64)
        indices[perm.long()] = left.long() * behind + right
        rows = tt_lookup(indices, wide, False)[0]
        of_weights = (rows * of_rows).sum(1).to(grad.dtype)
    if weights is not None:
        of_rows = of_rows * weights.to(dtype).unsqueeze(1)
    found = tt_lookup_backward(of_rows, wide, perm, left, right)
    return [f.to(core.dtype) for f, core in zip(found, cores, strict=True)], of_weights
