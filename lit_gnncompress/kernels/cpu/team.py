"""The threads of kernels: torch's own where it has OpenMP's, else plain ones.

Threads that have just worked for torch spin for a while before they sleep. Others beside them would
have to share their processors, which makes two threads slower than one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from numba.core.dispatcher import Dispatcher

from lit_gnncompress.kernels.cpu.team_loop import run_compiled

Span = tuple[int, int]


def share(kernel: Callable[..., Any], spans: Iterable[Span], threads: int, *args: Any) -> None:
    """Calls ``kernel(first, last, *args)`` for all spans, each taken by a thread that is free.

    Args:
        kernel: Releases the lock of the interpreter; works on the rows of its span alone.
        spans: First row, and the one after the last; the largest first is quickest.
        threads: How many work, the caller among them.
        args: What else the kernel takes.

    Raises:
        Exception: What a kernel raised.
    """
    spans = list(spans)
    threads = min(threads, len(spans))
    if threads > 1 and isinstance(kernel, Dispatcher) and (run := _openmp()) is not None:
        run_compiled(run, kernel, spans, threads, *args)
        return
    left = spans[::-1]
    raised: list[BaseException] = []

    def work() -> None:
        try:
            while left and not raised:
                try:
                    first, last = left.pop()
                except IndexError:  # another thread took it
                    return
                kernel(first, last, *args)
        except BaseException as error:
            raised.append(error)

    helpers = [_helpers(os.getpid()).submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        if not helper.cancel():
            helper.result()
    if raised:
        raise raised[0]


@lru_cache(maxsize=1)
def _openmp() -> int | None:
    """Where ``GOMP_parallel`` of the library is whose threads torch uses; ``None`` without one."""
    folder = Path(torch.__file__).parent / "lib"
    for library in sorted(folder.glob("libgomp*.so*")):
        try:
            run = ctypes.CDLL(str(library)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        return ctypes.cast(run, ctypes.c_void_p).value
    return None


@lru_cache(maxsize=1)
def _helpers(process: int) -> ThreadPoolExecutor:
    """Threads do not survive a fork: another process gets its own."""
    workers = max(1, (os.cpu_count() or 1) - 1)
    return ThreadPoolExecutor(workers, thread_name_prefix="lit_gnncompress")
