"""Triton: ``edge_dot``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda import spans
from lit_gnncompress.kernels.cuda.rows import choose_tile, float_rows
from lit_gnncompress.kernels.cuda.spans import PER_GRAPH, count_pieces, find_span


def edge_dot(
    x: Tensor, y: Tensor, rowptr: Tensor, col: Tensor, perm: Tensor | None, heads: int
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.edge_dot`: one program a target, see ``spans``."""
    targets, edges = rowptr.size(0) - 1, col.size(0)
    out = x.new_empty(edges, heads)
    if out.numel() == 0:
        return out
    rows = float_rows(x)
    tile = choose_tile(rows, heads)
    pieces = count_pieces(edges)
    with torch.cuda.device_of(x):
        _kernel[(pieces + targets, triton.cdiv(heads, tile.heads))](
            rows.data,
            y.contiguous(),
            rowptr.contiguous(),
            col.contiguous(),
            None if perm is None else perm.contiguous(),
            out,
            heads,
            rows.width // heads,
            pieces,
            edges,
            targets,
            SPLIT=spans.SPLIT,
            EDGES=tile.edges,
            HEADS=tile.heads,
            BLOCK=tile.columns,
            num_warps=tile.warps,
            enable_fp_fusion=True,
        )
    return out


@triton.jit(do_not_specialize=PER_GRAPH)
def _kernel(
    x: tl.tensor,
    y: tl.tensor,
    rowptr: tl.tensor,
    col: tl.tensor,
    perm: tl.tensor,
    out: tl.tensor,
    heads: tl.tensor,
    width: tl.tensor,
    pieces: tl.tensor,
    edges: tl.tensor,
    targets: tl.tensor,
    SPLIT: tl.constexpr,
    EDGES: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    number = tl.program_id(0)
    row, start, end, _whole = find_span(rowptr, number, pieces, edges, targets, SPLIT)
    head = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[None, :, None]
    for slot in range(start, end, EDGES):
        at = slot + tl.arange(0, EDGES)[:, None, None]
        live = at < end
        source = tl.load(col + at, live, 0).to(tl.int64)
        inside = live & (head < heads)
        sums = tl.zeros((EDGES, HEADS, BLOCK), tl.float32)
        for first in range(0, width, BLOCK):
            column = (first + tl.arange(0, BLOCK))[None, None, :]
            place = head * width + column
            here = (head < heads) & (column < width)
            of_target = tl.load(y + row * heads * width + place, here, 0.0)
            sums += tl.load(x + source * heads * width + place, live & here, 0.0) * of_target
        edge = at if perm is None else tl.load(perm + at, live, 0).to(tl.int64)
        tl.store(out + edge * heads + head, tl.sum(sums, 2, keep_dims=True), inside)
