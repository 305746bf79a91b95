"""Plain torch: the meaning of ``sort_edges``."""

from __future__ import annotations

import torch
from torch import Tensor


def sort_edges(source: Tensor, target: Tensor, num_targets: int) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.sort_edges`."""
    rowptr = target.new_zeros(num_targets + 1, dtype=torch.int64)
    rowptr[1:] = torch.bincount(target, minlength=num_targets).cumsum(0)
    if bool((target[1:] >= target[:-1]).all()):
        return rowptr, source.to(torch.int32, copy=True), target.new_empty(0, dtype=torch.int32)
    perm = target.argsort(stable=True)
    return rowptr, source[perm].to(torch.int32), perm.to(torch.int32)
