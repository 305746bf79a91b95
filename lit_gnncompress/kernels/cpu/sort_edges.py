"""A counting sort of edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor


def sort_edges(source: Tensor, target: Tensor, num_targets: int) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.sort_edges`."""
    source, target = source.contiguous(), target.contiguous()
    rowptr = torch.zeros(num_targets + 1, dtype=torch.int64)
    if _count(target.numpy(), rowptr.numpy()):
        return rowptr, source.to(torch.int32, copy=True), torch.empty(0, dtype=torch.int32)
    col = torch.empty(source.size(0), dtype=torch.int32)
    perm = torch.empty(source.size(0), dtype=torch.int32)
    _place(source.numpy(), target.numpy(), rowptr.clone().numpy(), col.numpy(), perm.numpy())
    return rowptr, col, perm


@njit(cache=True, nogil=True)
def _count(target: Any, rowptr: Any) -> bool:
    """Fills ``rowptr``; whether targets never fall."""
    falls = 0
    before: Any = np.uint32(0)
    for edge in range(len(target)):
        node = np.uint32(target[edge])
        rowptr[node + 1] += 1
        falls += node < before
        before = node
    for row in range(1, len(rowptr)):
        rowptr[row] += rowptr[row - 1]
    return falls == 0


@njit(cache=True, nogil=True)
def _place(source: Any, target: Any, free: Any, col: Any, perm: Any) -> None:
    """Puts every edge into the first free slot of its target."""
    for edge in range(len(target)):
        node = np.uint32(target[edge])
        slot = free[node]
        free[node] = slot + 1
        col[slot] = source[edge]
        perm[slot] = edge
