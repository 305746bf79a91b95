"""How codes lie in memory, and the checks that operations share."""

from __future__ import annotations

import torch
from torch import Tensor

CODES_PER_GROUP = 16
"""Rows are filled up to groups of this many codes, so that vector code needs no remainder."""

GAP = 255
"""In a stream of gaps, the byte that skips as many columns and stores no code."""


def row_bytes(width: int, bits: int) -> int:
    """Bytes of one packed row of ``width`` codes.

    The codes of a row are adjacent and little-endian: code ``k`` takes the bits ``k·bits`` to
    ``(k+1)·bits − 1`` of the row, and bit ``i`` of a row is bit ``i mod 8`` of its byte
    ``i div 8``. Codes that fill up a row are zero.
    """
    groups = -(-width // CODES_PER_GROUP)
    return groups * CODES_PER_GROUP * bits // 8


def stream_bytes(count: int, bits: int) -> int:
    """Bytes of ``count`` codes in a row, filled up to a whole byte only: values of sparse rows."""
    return -(-count * bits // 8)


def check_bits(bits: int) -> None:
    """Refuses what is no width of a code.

    Raises:
        ValueError: Bits outside 1 to 8.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"bits={bits}: a code has 1 to 8 bits.")


def check_packed(packed: Tensor, bits: int, width: int) -> None:
    """Refuses what cannot be packed rows of ``width`` codes.

    Raises:
        ValueError: Bits outside 1 to 8, a negative width, not a uint8 matrix, or another number of
            bytes in a row.
    """
    check_bits(bits)
    if width < 0:
        raise ValueError(f"width={width}: rows have 0 codes or more.")
    if packed.dtype != torch.uint8 or packed.dim() != 2:
        raise ValueError(
            f"packed must be a uint8 matrix (N, bytes), got {packed.dtype} of shape "
            f"{tuple(packed.shape)}."
        )
    expected = row_bytes(width, bits)
    if packed.size(1) != expected:
        raise ValueError(
            f"packed has rows of {packed.size(1)} bytes, but width={width} and bits={bits} take "
            f"{expected}."
        )


def check_ranges(lo: Tensor, scale: Tensor, rows: int, like: Tensor) -> None:
    """Refuses ranges that do not fit ``rows`` rows on the device of ``like``.

    Raises:
        ValueError: Not float32, not of shape ``(1,)`` or ``(rows,)``, or on another device.
    """
    for name, ends in (("lo", lo), ("scale", scale)):
        if ends.dtype != torch.float32 or ends.dim() != 1 or ends.size(0) not in (1, rows):
            raise ValueError(
                f"{name} must be float32 of shape (1,) or ({rows},), one of all rows or one of "
                f"each, got {ends.dtype} of shape {tuple(ends.shape)}."
            )
        if ends.device != like.device:
            raise ValueError(
                f"{name} is on {ends.device}, the rows are on {like.device}: move one of them."
            )


def check_scale(scale: Tensor) -> None:
    """Refuses a range whose maximum is below its minimum; reads all of ``scale``.

    Raises:
        ValueError: A scale that is negative or not finite.
    """
    if scale.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = (end.item() for end in scale.aminmax())  # NaN if any is
    if not (low >= 0 and high < float("inf")):
        wrong = ~((scale >= 0) & (scale < float("inf")))
        place = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"scale[{place}]={float(scale[place])}: a range needs max >= min, both finite, "
            "so that scale = (max - min) / (2 ** bits - 1) is finite and not negative."
        )


def check_index(index: Tensor, rows: int, like: Tensor) -> None:
    """Refuses indices that are no rows; on a GPU this waits for them.

    Raises:
        ValueError: Not one-dimensional, neither int64 nor int32, or on another device.
        IndexError: An index below 0 or from ``rows`` on.
    """
    if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"index must be int64 or int32 of shape (M,), got {index.dtype} of shape "
            f"{tuple(index.shape)}."
        )
    if index.device != like.device:
        raise ValueError(
            f"index is on {index.device}, the rows are on {like.device}: move one of them."
        )
    if index.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = (int(end) for end in index.aminmax())
    if low < 0 or high >= rows:
        wrong = low if low < 0 else high
        place = int((index == wrong).nonzero()[0, 0])
        raise IndexError(f"index[{place}]={wrong} is no row: there are {rows}, counted from 0.")
