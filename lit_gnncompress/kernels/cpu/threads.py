"""Rows shared among threads, by their edges."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch

_CHUNKS_PER_THREAD = 8
_WORTH_A_THREAD = 1 << 20
"""Multiplications that take about as long as waking a thread."""


def over_rows(
    kernel: Callable[..., Any], rowptr: np.ndarray, work_of_edge: int, *args: Any
) -> None:
    """Calls ``kernel(first, last, *args)`` for ranges that cover all rows of a CSR.

    Ranges have about the same number of edges each. Kernels release the lock of the interpreter:
    plain threads then need no second compilation, sleep when idle instead of spinning beside
    torch's own, and may be forked from.

    Args:
        kernel: Works on the rows from ``first`` to ``last - 1`` alone.
        rowptr: int64, shape ``(M + 1,)``.
        work_of_edge: Multiplications for an edge.
        args: What else it takes.
    """
    rows, edges = len(rowptr) - 1, int(rowptr[-1])
    threads = min(torch.get_num_threads(), 1 + (edges + rows) * work_of_edge // _WORTH_A_THREAD)
    if threads == 1:
        kernel(0, rows, *args)
        return
    pieces = threads * _CHUNKS_PER_THREAD
    cuts = np.searchsorted(rowptr, np.arange(1, pieces) * edges // pieces)
    bounds = np.unique(np.concatenate([[0], cuts, [rows]])).tolist()
    jobs = [
        _pool(threads - 1, os.getpid()).submit(kernel, first, last, *args)
        for first, last in pairwise(bounds)
    ]
    # This thread is one of them: it takes from the end what nobody has begun.
    for job, first, last in zip(jobs[::-1], bounds[-2::-1], bounds[:0:-1], strict=True):
        if job.cancel():
            kernel(first, last, *args)
    for job in jobs:
        if not job.cancelled():
            job.result()


@lru_cache(maxsize=1)
def _pool(workers: int, process: int) -> ThreadPoolExecutor:
    """Threads do not survive a fork: another process gets its own."""
    return ThreadPoolExecutor(workers, thread_name_prefix="lit_gnncompress")
