"""Rows of a tensor train shared among threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_gnncompress.kernels.cpu.team import share
from lit_gnncompress.kernels.cpu.tt_tiles import LANES

_PER_THREAD = 4
_WORTH_A_THREAD = 1 << 21
"""Multiplications that take about as long as waking a thread."""

_MOST, _ROWS_OF_EACH = 16, 1024


def count_chunks(work: int) -> int:
    """Chunks that keep the threads busy that ``work`` multiplications are worth."""
    threads = min(torch.get_num_threads(), 1 + work // _WORTH_A_THREAD)
    return _PER_THREAD * threads if threads > 1 else 1


def fixed_chunks(rows: int, size: int, private: int) -> int:
    """Chunks for sums: as many whatever the number of threads, so that sums are the same bits.

    Args:
        rows: Number of rows.
        size: Floats of all rows.
        private: Floats that a chunk sums into: those of all chunks are no more than the rows.
    """
    return max(1, min(_MOST, rows // _ROWS_OF_EACH, size // private))


def add_chunks(sums: Tensor) -> Tensor:
    """The sums of all chunks, always in the same order; ``sums`` is overwritten."""
    total = sums[0]
    for other in sums[1:]:
        total += other
    return total


def even_bounds(chunks: int, rows: int) -> np.ndarray:
    """First row of each chunk and, last, the number of rows; no more chunks than rows."""
    chunks = max(1, min(chunks, rows))
    return np.array([rows * chunk // chunks for chunk in range(chunks + 1)])


def over_chunks(
    kernel: Callable[..., Any],
    bounds: np.ndarray,
    work: int,
    sizes: tuple[int, ...],
    *args: Any,
) -> None:
    """Calls ``kernel(first, last, bounds, scratch, *args)`` for all chunks of rows.

    Args:
        kernel: Works on the chunks from ``first`` to ``last - 1`` alone, without the interpreter;
            the rows of chunk ``c`` are ``bounds[c]`` to ``bounds[c + 1] - 1``.
        bounds: See :func:`even_bounds`.
        work: Multiplications of all rows.
        sizes: Floats of scratch of its own that a chunk needs, zeros at first: ``scratch`` has a
            matrix for each of them, a row for each chunk.
        args: What else the kernel takes.
    """
    chunks = len(bounds) - 1
    # torch's memory begins at cache lines: vectors that cross them load at half the speed.
    scratch = tuple(
        torch.zeros(chunks, -(-size // LANES) * LANES, dtype=torch.float32).numpy()
        for size in sizes
    )
    threads = min(torch.get_num_threads(), 1 + work // _WORTH_A_THREAD)
    spans = [(chunk, chunk + 1) for chunk in range(chunks)] if threads > 1 else [(0, chunks)]
    share(kernel, spans, threads, bounds, scratch, *args)
