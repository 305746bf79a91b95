"""Sizes of tiles, and precision of their products."""

from __future__ import annotations

import torch
import triton

PROGRAMS = 512
"""That many programs, about four for each multiprocessor of a large GPU, keep it busy."""


def block(count: int, lowest: int, highest: int) -> int:
    """The power of two, between two powers of two, that covers ``count`` or comes closest."""
    return max(lowest, min(highest, triton.next_power_of_2(max(1, count))))


def rows_of_linear(rows: int, columns_of_tiles: int) -> int:
    """Rows that a program unpacks at a time: 64, fewer where there would be few programs."""
    return block(rows * columns_of_tiles // PROGRAMS, 16, 64)


def dot_precision() -> str:
    """That of fp32 products in torch: exact, unless the user lets it be TF32."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
