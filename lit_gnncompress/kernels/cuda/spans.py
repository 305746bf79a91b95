"""Which edges a program reduces: those of a target, or a piece of those of a target with many.

The edges of a target lie in adjacent slots. A target of more than ``SPLIT`` edges would keep one
program busy long after all others are done, so it is cut wherever a multiple of ``SPLIT`` falls
among its slots. Whatever the graph, at most two such targets have slots between two neighbouring
multiples: one has the first of these slots, the other has the last. This numbers the pieces, two
for each multiple, without a table and without asking the GPU how many there are. What is found for
the pieces of a target is put together by :func:`combine`, in their order: there are no atomics, and
every run gives the same.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda.tiles import block

SPLIT = 1024
"""Edges that a program reduces at most."""

PER_GRAPH = ("pieces", "edges", "targets")
"""What differs from one mini-batch to the next: no kernel is compiled anew for it."""


def count_pieces(edges: int) -> int:
    """Numbers of pieces, most of which no target needs; 0 if none can."""
    return 2 * triton.cdiv(edges, SPLIT) if edges > SPLIT else 0


def combine(parts: Tensor, rowptr: Tensor, out: Tensor, edges: int, reduce: str) -> None:
    """Reduces the pieces of targets that were cut.

    Args:
        parts: What was found for the pieces, shape ``(count_pieces(edges), F)``.
        rowptr: First slot of every target, int64, shape ``(M + 1,)``.
        out: Result, of which the rows of those targets are written, shape ``(M, F)``.
        edges: Number of edges.
        reduce: ``"sum"``, ``"mean"`` or ``"max"``.
    """
    if parts.numel() == 0:
        return
    width = out.size(1)
    columns = block(width, 16, 128)
    _combine[(parts.size(0), triton.cdiv(width, columns))](
        parts,
        rowptr,
        out,
        edges,
        out.size(0),
        width,
        REDUCE=reduce,
        SPLIT=SPLIT,
        PIECES=1024 // columns,
        BLOCK=columns,
        num_warps=1,
        enable_fp_fusion=False,
    )


@triton.jit
def find_row(rowptr: tl.tensor, slot: tl.tensor, targets: tl.tensor) -> tl.tensor:
    """The target that has a slot."""
    low = tl.zeros_like(slot)
    high = low + targets - 1
    while low < high:
        middle = (low + high + 1) // 2
        if tl.load(rowptr + middle) <= slot:
            low = middle
        else:
            high = middle - 1
    return low


@triton.jit
def find_piece(
    rowptr: tl.tensor,
    number: tl.tensor,
    edges: tl.tensor,
    targets: tl.tensor,
    SPLIT: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Target, first slot and last slot + 1 of a piece; no slots if no target needs it."""
    first = (number // 2).to(tl.int64) * SPLIT
    last = tl.minimum(first + SPLIT, edges) - 1
    row = find_row(rowptr, first if number % 2 == 0 else last, targets)
    start = tl.load(rowptr + row)
    end = tl.load(rowptr + row + 1)
    if (end - start <= SPLIT) | ((number % 2 == 1) & (start <= first)):
        end = start
    else:
        start = tl.maximum(start, first)
        end = tl.minimum(end, last + 1)
    return row, start, end


@triton.jit
def find_span(
    rowptr: tl.tensor,
    number: tl.tensor,
    pieces: tl.tensor,
    edges: tl.tensor,
    targets: tl.tensor,
    SPLIT: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """The span of a program: pieces come first, so that the long work begins early.

    Returns:
        Its target, its first slot, its last slot + 1, and whether there is anything to store: not
        for a piece that no target needs, nor for a target that is cut.
    """
    if number < pieces:
        row, start, end = find_piece(rowptr, number, edges, targets, SPLIT)
        whole = end > start
    else:
        row = (number - pieces).to(tl.int64)
        start = tl.load(rowptr + row)
        end = tl.load(rowptr + row + 1)
        whole = end - start <= SPLIT
        if not whole:
            end = start
    return row, start, end, whole


@triton.jit
def largest(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """The maximum; not a number if either is none, as in torch."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit(do_not_specialize=PER_GRAPH)
def _combine(
    parts: tl.tensor,
    rowptr: tl.tensor,
    out: tl.tensor,
    edges: tl.tensor,
    targets: tl.tensor,
    width: tl.tensor,
    REDUCE: tl.constexpr,
    SPLIT: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    number = tl.program_id(0)
    row, start, end = find_piece(rowptr, number, edges, targets, SPLIT)
    # One program for a target: that of its first piece.
    if (end > start) & (start == tl.load(rowptr + row)):
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
        inside = column < width
        NONE: tl.constexpr = float("-inf") if REDUCE == "max" else 0.0
        found = tl.load(parts + number.to(tl.int64) * width + column, inside, NONE)
        degree = tl.load(rowptr + row + 1) - start
        chunks = (start + degree - 1) // SPLIT + 1
        # Of all multiples but the first, the target has the first slot: their even pieces.
        for chunk in range(start // SPLIT + 1, chunks, PIECES):
            beside = chunk + tl.arange(0, PIECES)[:, None]
            at = parts + beside * 2 * width + column
            tile = tl.load(at, (beside < chunks) & inside, NONE)
            if REDUCE == "max":
                found = largest(found, tl.reduce(tile, 0, largest)[None, :])
            else:
                found += tl.sum(tile, 0)[None, :]
        if REDUCE == "mean":
            found /= degree.to(tl.float32)
        tl.store(out + row * width + column, found, inside)
