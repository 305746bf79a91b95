"""Rows shared among threads, by their edges."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import njit

from lit_gnncompress.kernels.cpu.team import share

_CHUNKS_PER_THREAD = 8
_WORTH_A_THREAD = 1 << 20
"""Multiplications that take several times as long as to start a thread on them."""


def over_rows(
    kernel: Callable[..., Any],
    rowptr: np.ndarray,
    work_of_edge: int,
    *args: Any,
    chunks_per_thread: int = _CHUNKS_PER_THREAD,
    edges_of_row: int = 1,
) -> None:
    """Calls ``kernel(first, last, *args)`` for ranges that cover all rows of a CSR.

    Ranges have about the same number of edges each. Kernels release the lock of the interpreter,
    so that threads need no second compilation.

    Args:
        kernel: Works on the rows from ``first`` to ``last - 1`` alone.
        rowptr: int64, shape ``(M + 1,)``.
        work_of_edge: Multiplications for an edge.
        args: What else it takes.
        chunks_per_thread: Ranges for each: many, so that none waits long for the others; few, if
            the kernel prepares something for each.
        edges_of_row: Edges that take as long as what there is to do for a row besides.
    """
    rows, edges = len(rowptr) - 1, int(rowptr[-1])
    work = (edges + rows * edges_of_row) * work_of_edge
    threads = min(torch.get_num_threads(), 1 + work // _WORTH_A_THREAD)
    if threads == 1:
        kernel(0, rows, *args)
        return
    bounds = _cut(rowptr, threads * chunks_per_thread, edges_of_row).tolist()
    share(kernel, ((a, b) for a, b in pairwise(bounds) if a < b), threads, *args)


@njit(cache=True, nogil=True)
def _cut(rowptr: Any, pieces: int, edges_of_row: int) -> Any:
    """Where ranges of about the same work begin, and the last one ends."""
    rows = len(rowptr) - 1
    bounds = np.zeros(pieces + 1, np.int64)
    total = rowptr[rows] + rows * edges_of_row
    for piece in range(1, pieces + 1):
        wanted = total * piece // pieces
        low, high = bounds[piece - 1], rows
        while low < high:
            row = (low + high) // 2
            if rowptr[row] + row * edges_of_row < wanted:
                low = row + 1
            else:
                high = row
        bounds[piece] = low
    bounds[pieces] = rows
    return bounds
