"""Rows shared among threads, by their edges."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from lit_gnncompress.kernels.cpu.team import share

_CHUNKS_PER_THREAD = 8
_WORTH_A_THREAD = 1 << 22
"""Multiplications that take about as long as waking a thread."""


def over_rows(
    kernel: Callable[..., Any],
    rowptr: np.ndarray,
    work_of_edge: int,
    *args: Any,
    chunks_per_thread: int = _CHUNKS_PER_THREAD,
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
    """
    rows, edges = len(rowptr) - 1, int(rowptr[-1])
    threads = min(torch.get_num_threads(), 1 + (edges + rows) * work_of_edge // _WORTH_A_THREAD)
    if threads == 1:
        kernel(0, rows, *args)
        return
    pieces = threads * chunks_per_thread
    cuts = np.searchsorted(rowptr, np.arange(1, pieces) * edges // pieces)
    bounds = np.unique(np.concatenate([[0], cuts, [rows]])).tolist()
    share(kernel, pairwise(bounds), threads, *args)
