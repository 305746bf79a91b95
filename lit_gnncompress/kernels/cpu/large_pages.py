"""Memory for large outputs, in pages of 2 MB where the kernel has them."""

from __future__ import annotations

import ctypes
import mmap
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_LARGE = 32 << 20
"""Bytes from which malloc keeps nothing that was freed: every call gets pages never touched.

To be given those, 4 KB at a time, takes longer than to write them.
"""

_PAGE = 2 << 20


def empty_rows(rows: int, width: int) -> Tensor:
    """What ``torch.empty`` gives: float32, shape ``(rows, width)``."""
    out = torch.empty(rows, width, dtype=torch.float32)
    start, size = out.data_ptr(), out.numel() * out.element_size()
    if size >= _LARGE and (advise := _madvise()) is not None:
        first, end = -(-start // _PAGE) * _PAGE, (start + size) // _PAGE * _PAGE
        advise(first, end - first, mmap.MADV_HUGEPAGE)  # refused, it is as before
    return out


@lru_cache(maxsize=1)
def _madvise() -> Any:
    """The C library's ``madvise``; ``None`` on a system that has no such pages."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if advise is not None:
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise
