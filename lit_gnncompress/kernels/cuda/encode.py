"""Codes in registers, to packed rows."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def store_codes(
    packed: tl.tensor,
    codes: tl.tensor,
    row: tl.tensor,
    first: tl.tensor,
    size: tl.tensor,
    live: tl.tensor,
    BITS: tl.constexpr,
    BYTES: tl.constexpr,
) -> None:
    """Packs a tile of rows: eight codes fill ``BITS`` bytes.

    Args:
        packed: Pointer to the packed rows.
        codes: Integers, shape ``(ROWS, BLOCK)``, those that fill up a row 0.
        row: int64, shape ``(ROWS,)``.
        first: Column of the first code, a multiple of 8.
        size: Bytes of a row.
        live: bool, shape ``(ROWS,)``: the rows that there are.
        BITS: Bits of a code.
        BYTES: The power of two not less than ``BITS``.
    """
    GROUPS: tl.constexpr = codes.shape[1] // 8
    codes = tl.reshape(codes, (codes.shape[0], GROUPS, 8))
    place = tl.arange(0, 8)[None, None, :]
    if BITS <= 4:
        eight = tl.sum(codes.to(tl.uint32) << (place * BITS).to(tl.uint32), 2)
    else:
        eight = tl.sum(codes.to(tl.uint64) << (place * BITS).to(tl.uint64), 2)
    byte = tl.arange(0, BYTES)[None, None, :]
    at = (first // 8 + tl.arange(0, GROUPS)[None, :, None]) * BITS + byte
    live = live[:, None, None] & (at < size) & (byte < BITS)
    values = (eight[:, :, None] >> (byte * 8).to(eight.dtype)).to(tl.uint8)
    tl.store(packed + row[:, None, None] * size + at, values, live)
