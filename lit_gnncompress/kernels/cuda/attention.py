"""Attention over a graph, of rows of floats or packed rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda import spans
from lit_gnncompress.kernels.cuda.rows import Rows, choose_tile, load_rows
from lit_gnncompress.kernels.cuda.spans import (
    PER_GRAPH,
    combine,
    count_pieces,
    find_piece,
    find_span,
)
from lit_gnncompress.kernels.cuda.tiles import block
from lit_gnncompress.kernels.cuda.uniform import fold_seed, uniform


def attention(
    rows: Rows,
    score_src: Tensor,
    score_dst: Tensor,
    rowptr: Tensor,
    col: Tensor,
    negative_slope: float,
    alpha_range: Tensor | None,
    renormalize: bool,
    perm: Tensor | None,
    dropout_p: float,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.attention_aggregate`.

    First the highest score of every target and the sum of its exponentials, and where rounded
    coefficients are divided by their sum that sum: one program a target, however many its edges.
    Then the sum that coefficients weigh, worked out from these: see ``spans``.
    """
    targets, edges, heads = rowptr.size(0) - 1, col.size(0), score_dst.size(1)
    out = score_dst.new_zeros(targets, rows.width)
    row_max, row_sum, rounded_sum = stats = [score_dst.new_zeros(targets, heads) for _ in range(3)]
    if edges > 0:
        ends = None if alpha_range is None else alpha_range.contiguous()
        by_row = ends is not None and ends.size(0) > 1
        divided = ends is not None and renormalize
        rowptr, col = rowptr.contiguous(), col.contiguous()
        scores = score_src.contiguous(), score_dst.contiguous()
        with torch.cuda.device_of(score_dst):
            _find_stats(*scores, rowptr, col, negative_slope, ends, by_row, divided, stats)
            if out.numel() > 0:
                pieces = count_pieces(edges)
                parts = out.new_empty(pieces, rows.width)
                tile = choose_tile(rows, heads)
                share = rows.width // heads
                across = triton.cdiv(share, tile.columns), triton.cdiv(heads, tile.heads)
                _kernel[(pieces + targets, *across)](
                    rows.data,
                    rows.lo,
                    rows.scale,
                    rowptr,
                    col,
                    None if perm is None else perm.contiguous(),
                    *scores,
                    row_max,
                    row_sum,
                    rounded_sum,
                    ends,
                    negative_slope,
                    dropout_p,
                    1 / max(1 - dropout_p, 1e-16),
                    fold_seed(seed),
                    out,
                    parts,
                    rows.stride,
                    heads,
                    share,
                    pieces,
                    edges,
                    targets,
                    **rows.ranges,
                    RANGE_BY_ROW=by_row,
                    DIVIDED=divided,
                    DROPOUT=dropout_p > 0,
                    BITS=rows.bits,
                    WORD=rows.word,
                    SPLIT=spans.SPLIT,
                    EDGES=tile.edges,
                    HEADS=tile.heads,
                    BLOCK=tile.columns,
                    num_warps=tile.warps,
                    enable_fp_fusion=True,
                )
                combine(parts, rowptr, out, edges, "sum")
    return out, row_max, row_sum


def _find_stats(
    score_src: Tensor,
    score_dst: Tensor,
    rowptr: Tensor,
    col: Tensor,
    negative_slope: float,
    alpha_range: Tensor | None,
    by_row: bool,
    divided: bool,
    stats: list[Tensor],
) -> None:
    """Of most targets a warp each, and of those that are cut elsewhere many each."""
    targets, heads = score_dst.shape
    beside = block(heads, 1, 16)
    for cut in (False, True):
        programs = count_pieces(col.size(0)) if cut else targets
        if programs == 0:
            continue
        _stats_kernel[(programs, triton.cdiv(heads, beside))](
            score_src,
            score_dst,
            rowptr,
            col,
            *stats,
            alpha_range,
            negative_slope,
            heads,
            col.size(0),
            targets,
            RANGE_BY_ROW=by_row,
            DIVIDED=divided,
            CUT=cut,
            SPLIT=spans.SPLIT,
            EDGES=(1024 if cut else 64) // beside,
            HEADS=beside,
            num_warps=8 if cut else 1,
            enable_fp_fusion=True,
        )


@triton.jit(do_not_specialize=PER_GRAPH)
def _stats_kernel(
    score_src: tl.tensor,
    score_dst: tl.tensor,
    rowptr: tl.tensor,
    col: tl.tensor,
    row_max: tl.tensor,
    row_sum: tl.tensor,
    rounded_sum: tl.tensor,
    alpha_range: tl.tensor,
    slope: tl.tensor,
    heads: tl.tensor,
    edges: tl.tensor,
    targets: tl.tensor,
    RANGE_BY_ROW: tl.constexpr,
    DIVIDED: tl.constexpr,
    CUT: tl.constexpr,
    SPLIT: tl.constexpr,
    EDGES: tl.constexpr,
    HEADS: tl.constexpr,
) -> None:
    if CUT:
        row, start, end = find_piece(rowptr, tl.program_id(0), edges, targets, SPLIT)
        # One program for a target: that of its first piece.
        mine = (end > start) & (start == tl.load(rowptr + row))
        end = tl.load(rowptr + row + 1) if mine else start
    else:
        row = tl.program_id(0).to(tl.int64)
        start = tl.load(rowptr + row)
        end = tl.load(rowptr + row + 1)
        mine = (end > start) & (end - start <= SPLIT)
        if not mine:
            end = start
    head = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[None, :]
    known = head < heads
    place = row * heads + head
    own = tl.load(score_dst + place, known, 0.0)
    highest = tl.full((EDGES, HEADS), float("-inf"), tl.float32)
    for slot in range(start, end, EDGES):
        score, live = _scores(score_src, own, col, slot, end, slope, head, heads, EDGES)
        highest = tl.where(live, tl.maximum(highest, score), highest)
    highest = tl.max(highest, 0, keep_dims=True)
    total = tl.zeros((EDGES, HEADS), tl.float32)
    for slot in range(start, end, EDGES):
        score, live = _scores(score_src, own, col, slot, end, slope, head, heads, EDGES)
        total += tl.where(live, tl.exp(score - highest), 0.0)
    total = tl.sum(total, 0, keep_dims=True)
    if DIVIDED:
        least, step, levels = _range_of(alpha_range, row, head, RANGE_BY_ROW)
        rounded = tl.zeros((EDGES, HEADS), tl.float32)
        for slot in range(start, end, EDGES):
            score, live = _scores(score_src, own, col, slot, end, slope, head, heads, EDGES)
            alpha = _round(_softmax(score, highest, total), least, step, levels)
            rounded += tl.where(live, alpha, 0.0)
        if mine:
            tl.store(rounded_sum + place, tl.sum(rounded, 0, keep_dims=True), known)
    if mine:
        tl.store(row_max + place, highest, known)
        tl.store(row_sum + place, total, known)


@triton.jit
def _scores(
    score_src: tl.tensor,
    own: tl.tensor,
    col: tl.tensor,
    slot: tl.tensor,
    end: tl.tensor,
    slope: tl.tensor,
    head: tl.tensor,
    heads: tl.tensor,
    EDGES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Scores of some slots, shape ``(EDGES, HEADS)``, and which of them there are."""
    at = slot + tl.arange(0, EDGES)[:, None]
    live = (at < end) & (head < heads)
    source = tl.load(col + at, at < end, 0).to(tl.int64)
    return _leaky(tl.load(score_src + source * heads + head, live, 0.0) + own, slope), live


@triton.jit
def _leaky(score: tl.tensor, slope: tl.tensor) -> tl.tensor:
    return tl.where(score > 0, score, score * slope)


@triton.jit
def _softmax(score: tl.tensor, highest: tl.tensor, total: tl.tensor) -> tl.tensor:
    return _divide(tl.exp(score - highest), total + 1e-16)


@triton.jit
def _range_of(
    alpha_range: tl.tensor, row: tl.tensor, head: tl.tensor, BY_ROW: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Value of code 0, distance of two codes and highest code, in the shape of ``head``."""
    at = alpha_range + tl.zeros_like(head)
    if BY_ROW:
        at += row * 3
    return tl.load(at), tl.load(at + 1), tl.load(at + 2)


@triton.jit
def _round(alpha: tl.tensor, least: tl.tensor, step: tl.tensor, levels: tl.tensor) -> tl.tensor:
    """Coefficients by their codes, where the highest code is not negative."""
    codes = _divide(alpha - least, tl.where(step > 0, step, 1.0))
    codes = tl.minimum(tl.where(step > 0, tl.maximum(codes, 0.0), 0.0), levels)
    # Added and taken away again, 2 ** 23 rounds to a whole number, halves to even.
    codes = (codes + 8388608.0) - 8388608.0
    return tl.where(levels < 0, alpha, codes * step + least)


@triton.jit
def _divide(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """The quotient as IEEE rounds it: `/` is a unit in the last place off."""
    return tl.div_rn(a, tl.broadcast_to(b, a.shape))


@triton.jit(do_not_specialize=[*PER_GRAPH, "key"])
def _kernel(
    x: tl.tensor,
    lo: tl.tensor,
    scale: tl.tensor,
    rowptr: tl.tensor,
    col: tl.tensor,
    perm: tl.tensor,
    score_src: tl.tensor,
    score_dst: tl.tensor,
    row_max: tl.tensor,
    row_sum: tl.tensor,
    rounded_sum: tl.tensor,
    alpha_range: tl.tensor,
    slope: tl.tensor,
    dropout: tl.tensor,
    kept: tl.tensor,
    key: tl.tensor,
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
    RANGE_BY_ROW: tl.constexpr,
    DIVIDED: tl.constexpr,
    DROPOUT: tl.constexpr,
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
    known = head < heads
    place = row * heads + head
    own = tl.load(score_dst + place, known, 0.0)
    highest = tl.load(row_max + place, known, 0.0)
    total = tl.load(row_sum + place, known, 1.0)
    if alpha_range is not None:
        least, step, levels = _range_of(alpha_range, row, head, RANGE_BY_ROW)
        if DIVIDED:
            divisor = tl.load(rounded_sum + place, known, 1.0)
            degree = (tl.load(rowptr + row + 1) - tl.load(rowptr + row)).to(tl.float32)
    found = tl.zeros((EDGES, HEADS, BLOCK), tl.float32)
    of_lo = tl.zeros((EDGES, HEADS, 1), tl.float32)
    for slot in range(start, end, EDGES):
        at = slot + tl.arange(0, EDGES)[:, None, None]
        live = at < end
        source = tl.load(col + at, live, 0).to(tl.int64)
        inside = live & known
        score = tl.load(score_src + source * heads + head, inside, 0.0) + own
        alpha = _softmax(_leaky(score, slope), highest, total)
        if alpha_range is not None:
            rounded = _round(alpha, least, step, levels)
            if DIVIDED:
                divided = _divide(rounded, tl.where(divisor > 0, divisor, 1.0))
                # If all are zero, they become alike.
                divided = tl.where(divisor > 0, divided, 1.0 / degree)
                rounded = tl.where(levels < 0, alpha, divided)
            alpha = rounded
        if DROPOUT:
            edge = at if perm is None else tl.load(perm + at, live, 0).to(tl.int64)
            dropped = uniform(edge * heads + head, key) < dropout
            alpha = tl.where(dropped, 0.0, alpha * kept)
        alpha = tl.where(inside, alpha, 0.0)
        values, s, m = load_rows(
            x, lo, scale, stride, source, inside, head * width + first, width - first,
            LO_BY_ROW, SCALE_BY_ROW, BITS, WORD, BLOCK,
        )  # fmt: skip
        if BITS > 0:
            of_lo += alpha * m
            alpha *= s
        found += values * alpha
    if whole:
        result = tl.sum(found + of_lo, 0, keep_dims=True)
        column = (first + tl.arange(0, BLOCK))[None, None, :]
        at = head * width + column
        inside = known & (column < width)
        if number < pieces:
            tl.store(parts + number.to(tl.int64) * heads * width + at, result, inside)
        else:
            tl.store(out + row * heads * width + at, result, inside)
