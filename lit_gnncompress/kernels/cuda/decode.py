"""Packed rows decoded in registers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_WORDS = {4: torch.uint32, 2: torch.uint16, 1: torch.uint8}


class Words(NamedTuple):
    """Packed rows as kernels load them.

    Attributes:
        data: Unsigned integers, row after row.
        stride: Words of a row.
        size: Bits of a word; 0 where each code is put together from bytes.
    """

    data: Tensor
    stride: int
    size: int


def as_words(packed: Tensor, bits: int, columns: int = 0) -> Words:
    """The longest words, up to 32 bits, that rows consist of and that begin and end with a code.

    Args:
        packed: uint8, shape ``(N, row_bytes(F, bits))``.
        bits: Bits of a code; no word ends with a code whose bits do not divide 8.
        columns: If not 0, a word must begin at every that many columns.
    """
    packed = packed.contiguous()
    if 8 % bits == 0:
        for size, dtype in _WORDS.items():
            whole = packed.size(1) % size == 0 and columns * bits % (8 * size) == 0
            if whole and packed.data_ptr() % size == 0 and packed.storage_offset() % size == 0:
                return Words(packed.view(-1).view(dtype), packed.size(1) // size, 8 * size)
    return Words(packed, packed.size(1), 0)


@triton.jit
def load_codes(
    words: tl.tensor,
    at: tl.tensor,
    first: tl.tensor,
    width: tl.tensor,
    live: tl.tensor,
    BITS: tl.constexpr,
    WORD: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """The codes ``first`` to ``first + BLOCK - 1`` of rows.

    A word is loaded once and then halved in the registers of its lane until every part is a code.
    Without words, each code is put together from two bytes: neighbouring lanes load the same ones,
    which costs instructions, but no bandwidth.

    Args:
        words: Pointer to ``Words.data``.
        at: int64, shape ``(…, 1)``: where each row begins, in words.
        first: Broadcasts with ``at``: a column at which a word begins.
        width: Columns from ``first`` on that there are; codes after them are 0, or those of the
            columns that share the last word.
        live: bool, broadcasts with ``at``: the rows that there are; codes of others are 0.
        BITS: Bits of a code.
        WORD: ``Words.size``.
        BLOCK: A power of two, not less than the codes of a word.

    Returns:
        uint32, shape ``(…, BLOCK)``.
    """
    if WORD == 0:
        column = tl.arange(0, BLOCK)
        bit = (first + column) * BITS
        live = live & (column < width)
        low = tl.load(words + (at + bit // 8), live, 0).to(tl.uint32)
        # The byte after may be that of the next row, or none: read where the code reaches it.
        high = tl.load(words + (at + bit // 8 + 1), live & (bit % 8 + BITS > 8), 0).to(tl.uint32)
        return ((low | (high << 8)) >> (bit % 8).to(tl.uint32)) & ((1 << BITS) - 1)
    else:
        PER_WORD: tl.constexpr = WORD // BITS
        word = tl.arange(0, BLOCK // PER_WORD)
        live = live & (word * PER_WORD < width)
        return _split(tl.load(words + (at + first // PER_WORD + word), live, 0), BITS, WORD)


@triton.jit
def _split(codes: tl.tensor, BITS: tl.constexpr, SIZE: tl.constexpr) -> tl.tensor:
    """Parts of ``SIZE`` bits, halved until they are codes."""
    codes = codes.to(tl.uint32)
    if SIZE > BITS:
        HALF: tl.constexpr = SIZE // 2
        low, high = codes & ((1 << HALF) - 1), codes >> HALF
        return _split(tl.interleave(low, high), BITS, HALF)
    else:
        return codes


@triton.jit
def load_range(ends: tl.tensor, row: tl.tensor, live: tl.tensor, BY_ROW: tl.constexpr) -> tl.tensor:
    """``lo`` or ``scale`` of rows, or the one of all rows."""
    if BY_ROW:
        return tl.load(ends + row, live, 0.0)
    else:
        return tl.load(ends)
