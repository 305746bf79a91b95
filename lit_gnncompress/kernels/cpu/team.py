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
    left = list(spans)[::-1]
    raised: list[BaseException] = []

    def work(_: Any = None) -> None:
        try:
            while left and not raised:
                try:
                    first, last = left.pop()
                except IndexError:  # another thread took it
                    return
                kernel(first, last, *args)
        except BaseException as error:
            raised.append(error)

    if threads == 1 or len(left) == 1:
        work()
    elif (run := _openmp()) is not None:
        run(_CALLBACK(work), None, threads, 0)
    else:
        helpers = [_helpers(os.getpid()).submit(work) for _ in range(threads - 1)]
        work()
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    if raised:
        raise raised[0]


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@lru_cache(maxsize=1)
def _openmp() -> Any:
    """``GOMP_parallel`` of the library whose threads torch uses; ``None`` without one."""
    folder = Path(torch.__file__).parent / "lib"
    for library in sorted(folder.glob("libgomp*.so*")):
        try:
            run = ctypes.CDLL(str(library)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        run.argtypes = [_CALLBACK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        run.restype = None
        return run
    return None


@lru_cache(maxsize=1)
def _helpers(process: int) -> ThreadPoolExecutor:
    """Threads do not survive a fork: another process gets its own."""
    workers = max(1, (os.cpu_count() or 1) - 1)
    return ThreadPoolExecutor(workers, thread_name_prefix="lit_gnncompress")
