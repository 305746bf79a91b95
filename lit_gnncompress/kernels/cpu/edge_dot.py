"""Dot products on edges, the row of a source asked for before it is needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.threads import over_rows
from lit_gnncompress.kernels.cpu.vector import prefetch

_AHEAD = 8
_CHANNELS = (8, 16, 32, 64, 128, 256)
"""Columns of a head for which a loop of its own is compiled."""


def edge_dot(
    x: Tensor, y: Tensor, rowptr: Tensor, col: Tensor, perm: Tensor | None, heads: int
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.edge_dot`."""
    width = x.size(1)
    out = torch.zeros(col.size(0), heads, dtype=torch.float32)
    if out.numel() == 0 or width == 0:
        return out
    x, y = x.detach().contiguous(), y.detach().contiguous()
    over_rows(
        _compiled(width // heads if width // heads in _CHANNELS else 0),
        rowptr.numpy(),
        width,
        x.view(-1).numpy(),
        y.view(-1).numpy(),
        width,
        rowptr.numpy(),
        col.numpy(),
        None if perm is None else perm.numpy(),
        heads,
        out.view(-1).numpy(),
    )
    return out


@cache
def _compiled(channels: int) -> Callable[..., None]:
    # Sums of a row in another order, no more: infinities and NaN stay what they are.
    @njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
    def kernel(
        first: int,
        last: int,
        x: Any,
        y: Any,
        width: int,
        rowptr: Any,
        col: Any,
        perm: Any,
        heads: int,
        out: Any,
    ) -> None:
        final = len(col) - 1
        by_head = channels if channels > 0 else width // heads
        for row in range(first, last):
            target = y[row * width : (row + 1) * width]
            for slot in range(rowptr[row], rowptr[row + 1]):
                later = np.int64(col[min(slot + _AHEAD, final)]) * width
                for column in range(0, width, 16):
                    prefetch(x, (later + column) * 4, 4)
                begin = np.int64(col[slot]) * width
                source = x[begin : begin + width]
                edge = np.int64(slot if perm is None else perm[slot])
                for head in range(heads):
                    total = np.float32(0)
                    for column in range(by_head):
                        place = np.uint64(head * by_head + column)
                        total += source[place] * target[place]
                    out[edge * heads + head] = total

    return kernel
