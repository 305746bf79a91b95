"""Plain torch: the meaning of ``same_edges``."""

from __future__ import annotations

import torch
from torch import Tensor


def same_edges(
    source: Tensor, target: Tensor, rowptr: Tensor, col: Tensor, perm: Tensor | None
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.same_edges.same_edges`."""
    rows = torch.arange(len(rowptr) - 1, device=col.device).repeat_interleave(rowptr.diff())
    if perm is not None:
        source, target = source[perm], target[perm]
    return ((source == col) & (target == rows)).all()
