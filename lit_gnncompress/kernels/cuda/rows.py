"""Rows of the sources of edges: floats, or packed."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda.decode import as_words, load_codes, load_range
from lit_gnncompress.kernels.cuda.tiles import block


class Rows(NamedTuple):
    """The rows of sources as kernels load them.

    Attributes:
        data: Floats, or words of packed rows.
        lo: Values of code 0; ``None`` of floats.
        scale: Distances of two codes; ``None`` of floats.
        stride: Numbers or words of a row.
        bits: Bits of a code; 0 of floats.
        word: Bits of a word, see ``decode.Words``.
        width: Columns.
    """

    data: Tensor
    lo: Tensor | None
    scale: Tensor | None
    stride: int
    bits: int
    word: int
    width: int

    @property
    def ranges(self) -> dict[str, bool]:
        """Which of the ranges differ from row to row."""
        return {
            "LO_BY_ROW": self.lo is not None and self.lo.size(0) > 1,
            "SCALE_BY_ROW": self.scale is not None and self.scale.size(0) > 1,
        }


def float_rows(x: Tensor) -> Rows:
    """Rows of floats, shape ``(N, F)``."""
    return Rows(x.contiguous(), None, None, x.size(1), 0, 0, x.size(1))


def packed_rows(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, heads: int
) -> Rows:
    """Packed rows, whose columns ``heads`` share alike."""
    words = as_words(packed, bits, width // heads if heads > 1 else 0)
    lo, scale = lo.contiguous(), scale.contiguous()
    return Rows(words.data, lo, scale, words.stride, bits, words.size, width)


class Tile(NamedTuple):
    """What a program reduces at a time: some columns of some heads of some edges."""

    edges: int
    heads: int
    columns: int
    warps: int


def choose_tile(rows: Rows, heads: int) -> Tile:
    """About 32 sums in the registers of each lane, and several rows on their way to it."""
    share = rows.width // heads
    lowest = max(1, rows.word // max(1, rows.bits)) if heads > 1 else 32
    columns = block(share, lowest, 512)
    beside = block(heads, 1, max(1, 512 // columns))
    edges = block(1024 // (columns * beside), 4, 16)
    return Tile(edges, beside, columns, max(1, edges * beside * columns // 1024))


@triton.jit
def load_rows(
    x: tl.tensor,
    lo: tl.tensor,
    scale: tl.tensor,
    stride: tl.tensor,
    source: tl.tensor,
    live: tl.tensor,
    begin: tl.tensor,
    width: tl.tensor,
    LO_BY_ROW: tl.constexpr,
    SCALE_BY_ROW: tl.constexpr,
    BITS: tl.constexpr,
    WORD: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Columns ``begin`` to ``begin + BLOCK - 1`` of rows.

    Args:
        x: ``Rows.data``, and so ``lo``, ``scale``, ``stride`` and the constants.
        lo: See ``x``.
        scale: See ``x``.
        stride: See ``x``.
        source: int64, shape ``(EDGES, 1, 1)``: the rows.
        live: bool, broadcasts with ``source``: those that there are.
        begin: int32, shape ``(1, HEADS, 1)``.
        width: Columns from ``begin`` on that there are.
        LO_BY_ROW: See ``x``.
        SCALE_BY_ROW: See ``x``.
        BITS: See ``x``.
        WORD: See ``x``.
        BLOCK: Columns of the tile.

    Returns:
        Floats or codes, shape ``(EDGES, HEADS, BLOCK)``, and the scale and the least value of each
        edge, with which codes become values.
    """
    at = source * stride
    if BITS == 0:
        column = tl.arange(0, BLOCK)[None, None, :]
        return tl.load(x + (at + begin + column), live & (column < width), 0.0), 1.0, 0.0
    else:
        codes = load_codes(x, at, begin, width, live, BITS, WORD, BLOCK)
        s = load_range(scale, source, live, SCALE_BY_ROW)
        m = load_range(lo, source, live, LO_BY_ROW)
        return codes.to(tl.float32), s, m
