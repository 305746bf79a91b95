"""Rows shared among threads evenly: every row is the same work."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from lit_gnncompress.kernels.cpu.team import share

_WORTH_A_THREAD = 1 << 19
"""Codes that take several times as long as to start a thread on them."""


def in_chunks(kernel: Callable[..., Any], rows: int, width: int, *args: Any) -> None:
    """Calls ``kernel(first, last, *args)`` for ranges that cover all rows.

    Args:
        kernel: Works on the rows from ``first`` to ``last - 1`` alone, without the interpreter.
        rows: Number of rows.
        width: Codes of a row.
        args: What else it takes.
    """
    threads = min(torch.get_num_threads(), 1 + rows * width // _WORTH_A_THREAD)
    cuts = [rows * part // threads for part in range(threads + 1)]
    share(kernel, pairwise(cuts), threads, *args)
