"""One look at every edge."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor


def same_edges(
    source: Tensor, target: Tensor, rowptr: Tensor, col: Tensor, perm: Tensor | None
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.same_edges.same_edges`."""
    order = torch.empty(0, dtype=torch.int32) if perm is None else perm
    arrays = (each.contiguous().numpy() for each in (source, target, rowptr, col, order))
    return torch.tensor(_same(*arrays))


@njit(cache=True, nogil=True)
def _same(source: Any, target: Any, rowptr: Any, col: Any, perm: Any) -> bool:
    sorted_already = len(perm) == 0
    for row in range(len(rowptr) - 1):
        for slot in range(rowptr[row], rowptr[row + 1]):
            edge = slot if sorted_already else np.int64(perm[slot])
            if source[edge] != col[slot] or target[edge] != row:
                return False
    return True
