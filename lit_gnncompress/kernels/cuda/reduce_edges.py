"""Messages along edges, reduced at their targets, of rows of floats or packed rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda import spans
from lit_gnncompress.kernels.cuda.rows import Rows, choose_tile, load_rows
from lit_gnncompress.kernels.cuda.spans import PER_GRAPH, combine, count_pieces, find_span, largest


def reduce_edges(
    rows: Rows,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.aggregate`: one program a target, see ``spans``."""
    targets, edges = rowptr.size(0) - 1, col.size(0)
    heads = weight.size(1) if weight is not None and weight.dim() == 2 else 1
    out = rowptr.new_empty(targets, rows.width, dtype=torch.float32)
    if out.numel() == 0:
        return out
    if edges == 0:
        return out.zero_()
    pieces = count_pieces(edges)
    rowptr, col = rowptr.contiguous(), col.contiguous()
    parts = out.new_empty(pieces, rows.width)
    tile = choose_tile(rows, heads)
    share = rows.width // heads
    grid = (pieces + targets, triton.cdiv(share, tile.columns), triton.cdiv(heads, tile.heads))
    with torch.cuda.device_of(rows.data):
        _kernel[grid](
            rows.data,
            rows.lo,
            rows.scale,
            rowptr,
            col,
            None if perm is None else perm.contiguous(),
            None if weight is None else weight.contiguous(),
            out,
            parts,
            rows.stride,
            heads,
            share,
            pieces,
            edges,
            targets,
            **rows.ranges,
            REDUCE=reduce,
            BITS=rows.bits,
            WORD=rows.word,
            SPLIT=spans.SPLIT,
            EDGES=tile.edges,
            HEADS=tile.heads,
            BLOCK=tile.columns,
            num_warps=tile.warps,
            # A maximum is found again by its value: messages are rounded as elsewhere.
            enable_fp_fusion=reduce != "max",
        )
        combine(parts, rowptr, out, edges, reduce)
    return out


@triton.jit(do_not_specialize=PER_GRAPH)
def _kernel(
    x: tl.tensor,
    lo: tl.tensor,
    scale: tl.tensor,
    rowptr: tl.tensor,
    col: tl.tensor,
    perm: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    parts: tl.tensor,
    stride: tl.tensor,
    heads: tl.tensor,
    width: tl.tensor,
    pieces: tl.tensor,
    edges: tl.tensor,
    targets: tl.tensor,
    LO_BY_ROW: tl.constexpr,
    SCALE_BY_ROW: tl.constexpr,
    REDUCE: tl.constexpr,
    BITS: tl.constexpr,
    WORD: tl.constexpr,
    SPLIT: tl.constexpr,
    EDGES: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    number = tl.program_id(0)
    row, start, end, whole = find_span(rowptr, number, pieces, edges, targets, SPLIT)
    first = tl.program_id(1) * BLOCK
    head = (tl.program_id(2) * HEADS + tl.arange(0, HEADS))[None, :, None]
    column = (first + tl.arange(0, BLOCK))[None, None, :]
    NONE: tl.constexpr = float("-inf") if REDUCE == "max" else 0.0
    found = tl.full((EDGES, HEADS, BLOCK), NONE, tl.float32)
    of_lo = tl.zeros((EDGES, HEADS, 1), tl.float32)
    for slot in range(start, end, EDGES):
        at = slot + tl.arange(0, EDGES)[:, None, None]
        live = at < end
        source = tl.load(col + at, live, 0).to(tl.int64)
        inside = live & (head < heads)
        w = tl.full((EDGES, HEADS, 1), 1.0, tl.float32)
        if weight is not None:
            edge = at if perm is None else tl.load(perm + at, live, 0).to(tl.int64)
            w = tl.load(weight + edge * heads + head, inside, 0.0)
        elif REDUCE != "max":
            w = tl.where(live, w, 0.0)
        values, s, m = load_rows(
            x, lo, scale, stride, source, inside, head * width + first, width - first,
            LO_BY_ROW, SCALE_BY_ROW, BITS, WORD, BLOCK,
        )  # fmt: skip
        if BITS > 0 and REDUCE == "max":
            values = values * s + m
        elif BITS > 0:
            # The least value goes in front: one product for a code, and one for an edge.
            of_lo += w * m
            w *= s
        if REDUCE == "max":
            found = tl.where(live, largest(found, values * w), found)
        else:
            found += values * w
    if whole:
        if REDUCE == "max":
            result = tl.reduce(found, 0, largest)[None, :, :]
            result = tl.where(end > start, result, 0.0)
        else:
            result = tl.sum(found + of_lo, 0)[None, :, :]
        at = head * width + column
        inside = (head < heads) & (column < width)
        if number < pieces:
            tl.store(parts + number.to(tl.int64) * heads * width + at, result, inside)
        else:
            if REDUCE == "mean":
                result /= tl.maximum(end - start, 1).to(tl.float32)
            tl.store(out + row * heads * width + at, result, inside)
