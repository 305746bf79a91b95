"""Products of small matrices that indices choose from two tables, and their gradients.

Rows of a tensor train are such products, and so are the slices of two neighbouring cores: all of
its kernels are here. Sums are float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda import spans
from lit_gnncompress.kernels.cuda.spans import PER_GRAPH, combine, count_pieces, find_span
from lit_gnncompress.kernels.cuda.tiles import block

_SUMS = 1024
"""Sums of a program: 8 in each lane of 4 warps."""

_PER_BATCH = ("slots",)


def multiply(
    a: Tensor,
    b: Tensor,
    of_a: Tensor | None,
    of_b: Tensor | None,
    place: Tensor | None,
    slots: int,
    out: Tensor,
) -> None:
    """``out[place[t]] = a[of_a[t]] @ b[of_b[t]]`` for every slot ``t``.

    Args:
        a: Shape ``(U, M, R)``.
        b: Shape ``(V, R, N)``.
        of_a: Matrix of each slot, int32, shape ``(T,)``; its number if ``None``.
        of_b: See ``of_a``.
        place: See ``of_a``.
        slots: How many there are, ``T``.
        out: Result, any float dtype, contiguous: matrices ``(M, N)``.
    """
    rank, height, width = a.size(2), a.size(1), b.size(2)
    tall, wide = block(height, 1, 32), block(width, 4, 32)
    together = max(1, _SUMS // (tall * wide))
    grid = triton.cdiv(slots, together), triton.cdiv(height, tall), triton.cdiv(width, wide)
    with torch.cuda.device_of(a):
        _multiply[grid](
            a,
            b,
            of_a,
            of_b,
            place,
            out,
            slots,
            height,
            rank,
            width,
            ROWS=together,
            HEIGHT=tall,
            WIDTH=wide,
            enable_fp_fusion=True,
        )


def dot_products(
    a: Tensor,
    b: Tensor,
    of_a: Tensor | None,
    of_b: Tensor | None,
    grad: Tensor,
    of_grad: Tensor,
    place: Tensor,
    out: Tensor,
) -> None:
    """``out[place[t]] = Σ_ij (a[of_a[t]] @ b[of_b[t]])[i, j] · grad[of_grad[t], i, j]``.

    Args:
        a: See :func:`multiply`, and so the arguments up to ``of_b``.
        b: See ``a``.
        of_a: See ``a``.
        of_b: See ``a``.
        grad: Shape ``(G, M, N)``, any float dtype.
        of_grad: Matrix of ``grad`` of each slot, int32, shape ``(T,)``.
        place: Where its sum goes, int32, shape ``(T,)``.
        out: Result, float32.
    """
    rank, height, width = a.size(2), a.size(1), b.size(2)
    tall, wide = block(height, 1, 32), block(width, 4, 32)
    slots, together = place.size(0), max(1, _SUMS // (tall * wide))
    with torch.cuda.device_of(a):
        _dot_products[(triton.cdiv(slots, together),)](
            a,
            b,
            of_a,
            of_b,
            grad,
            of_grad,
            place,
            out,
            slots,
            height,
            rank,
            width,
            ROWS=together,
            HEIGHT=tall,
            WIDTH=wide,
            enable_fp_fusion=True,
        )


class Factor:
    """A matrix of each slot, as a sum of outer products reads it: columns of ``k``, or rows.

    Args:
        data: Shape ``(U, K, I)`` or, transposed, ``(U, I, K)``.
        index: Matrix of each slot, int32; its number if ``None``.
        transposed: Whether ``K`` is last.
    """

    def __init__(self, data: Tensor, index: Tensor | None, transposed: bool = False) -> None:
        _, first, last = data.shape
        self.data, self.index, self.size = data, index, first * last
        self.depth, self.count = (last, first) if transposed else (first, last)
        self.steps = (1, last) if transposed else (last, 1)

    @property
    def args(self) -> tuple[Tensor, Tensor | None, int, int, int]:
        """What kernels take."""
        return self.data, self.index, self.size, *self.steps


def sum_segments(
    x: Factor, y: Factor, rowptr: Tensor, slots: int, weights: Tensor | None = None
) -> Tensor:
    """``out[u, i, j] = Σ_t w[t] Σ_k x[t, k, i] · y[t, k, j]`` over slots of ``u``; see ``spans``.

    Args:
        x: A matrix for each slot.
        y: Another.
        rowptr: First slot of each ``u``, int64, shape ``(U + 1,)``.
        slots: How many there are.
        weights: float32, shape ``(T,)``; 1 if ``None``.

    Returns:
        float32, shape ``(U, I, J)``, always the same bits.
    """
    targets = rowptr.size(0) - 1
    out = x.data.new_empty(targets, x.count * y.count, dtype=torch.float32)
    pieces = count_pieces(slots)
    parts = torch.empty(pieces, x.count * y.count, dtype=torch.float32, device=out.device)
    tall, wide = block(x.count, 1, 32), block(y.count, 4, 32)
    grid = pieces + targets, triton.cdiv(x.count, tall), triton.cdiv(y.count, wide)
    with torch.cuda.device_of(out):
        _sum_segments[grid](
            *x.args,
            *y.args,
            weights,
            rowptr,
            parts,
            out,
            pieces,
            slots,
            targets,
            x.depth,
            x.count,
            y.count,
            SPLIT=spans.SPLIT,
            SLOTS=max(1, min(8, _SUMS // (tall * wide))),
            HEIGHT=tall,
            WIDTH=wide,
            enable_fp_fusion=True,
        )
        combine(parts, rowptr, out, slots, "sum")
    return out.view(targets, x.count, y.count)


def add_by_atomics(
    x: Factor,
    y: Factor,
    key: Tensor | None,
    slots: int,
    out: Tensor,
    weights: Tensor | None = None,
) -> None:
    """Adds ``w[t] Σ_k x[t, k, i] · y[t, k, j]`` to ``out[key[t]]``, in any order.

    Args:
        x: A matrix for each slot.
        y: Another.
        key: int32, shape ``(T,)``; the slot if ``None``.
        slots: How many there are.
        out: float32, shape ``(U, I, J)``.
        weights: float32, shape ``(T,)``; 1 if ``None``.
    """
    tall, wide = block(x.count, 1, 32), block(y.count, 4, 32)
    together = max(1, _SUMS // (tall * wide))
    grid = triton.cdiv(slots, together), triton.cdiv(x.count, tall), triton.cdiv(y.count, wide)
    with torch.cuda.device_of(out):
        _add_by_atomics[grid](
            *x.args,
            *y.args,
            weights,
            key,
            out,
            slots,
            x.depth,
            x.count,
            y.count,
            SLOTS=together,
            HEIGHT=tall,
            WIDTH=wide,
            enable_fp_fusion=True,
        )


@triton.jit
def _chosen(index: tl.tensor, slot: tl.tensor, live: tl.tensor) -> tl.tensor:
    """The matrix of a slot."""
    chosen = slot if index is None else tl.load(index + slot, live, 0)
    return chosen.to(tl.int64)


@triton.jit(do_not_specialize=_PER_BATCH)
def _multiply(
    a: tl.tensor,
    b: tl.tensor,
    of_a: tl.tensor,
    of_b: tl.tensor,
    place: tl.tensor,
    out: tl.tensor,
    slots: tl.tensor,
    height: tl.tensor,
    rank: tl.tensor,
    width: tl.tensor,
    ROWS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    slot = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None]
    i = tl.program_id(1) * HEIGHT + tl.arange(0, HEIGHT)[None, :, None]
    j = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)[None, None, :]
    live = slot < slots
    left = a + (_chosen(of_a, slot, live) * height + i) * rank
    right = b + _chosen(of_b, slot, live) * rank * width + j
    sums = tl.zeros((ROWS, HEIGHT, WIDTH), tl.float32)
    for r in range(rank):
        x = tl.load(left + r, live & (i < height), 0.0).to(tl.float32)
        sums += x * tl.load(right + r * width, live & (j < width), 0.0).to(tl.float32)
    at = (_chosen(place, slot, live) * height + i) * width + j
    tl.store(out + at, sums.to(out.dtype.element_ty), live & (i < height) & (j < width))


@triton.jit(do_not_specialize=_PER_BATCH)
def _dot_products(
    a: tl.tensor,
    b: tl.tensor,
    of_a: tl.tensor,
    of_b: tl.tensor,
    grad: tl.tensor,
    of_grad: tl.tensor,
    place: tl.tensor,
    out: tl.tensor,
    slots: tl.tensor,
    height: tl.tensor,
    rank: tl.tensor,
    width: tl.tensor,
    ROWS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    slot = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None, None]
    live = slot < slots
    left = a + _chosen(of_a, slot, live) * height * rank
    right = b + _chosen(of_b, slot, live) * rank * width
    beside = grad + _chosen(of_grad, slot, live) * height * width
    sums = tl.zeros((ROWS, HEIGHT, WIDTH), tl.float32)
    for first_i in range(0, height, HEIGHT):
        i = first_i + tl.arange(0, HEIGHT)[None, :, None]
        for first_j in range(0, width, WIDTH):
            j = first_j + tl.arange(0, WIDTH)[None, None, :]
            rows = tl.zeros((ROWS, HEIGHT, WIDTH), tl.float32)
            for r in range(rank):
                x = tl.load(left + i * rank + r, live & (i < height), 0.0).to(tl.float32)
                y = tl.load(right + r * width + j, live & (j < width), 0.0).to(tl.float32)
                rows += x * y
            inside = live & (i < height) & (j < width)
            sums += rows * tl.load(beside + i * width + j, inside, 0.0).to(tl.float32)
    total = tl.sum(tl.sum(sums, 2, keep_dims=True), 1, keep_dims=True)
    tl.store(out + _chosen(place, slot, live), total, live)


@triton.jit
def _outer_products(
    x: tl.tensor,
    of_x: tl.tensor,
    x_size: tl.tensor,
    x_k: tl.tensor,
    x_i: tl.tensor,
    y: tl.tensor,
    of_y: tl.tensor,
    y_size: tl.tensor,
    y_k: tl.tensor,
    y_j: tl.tensor,
    weights: tl.tensor,
    slot: tl.tensor,
    live: tl.tensor,
    i: tl.tensor,
    j: tl.tensor,
    depth: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    sums: tl.tensor,
) -> tl.tensor:
    """``sums`` and what some slots add to them, shape ``(SLOTS, HEIGHT, WIDTH)``."""
    left = x + _chosen(of_x, slot, live) * x_size + i * x_i
    right = y + _chosen(of_y, slot, live) * y_size + j * y_j
    weight = 1.0 if weights is None else tl.load(weights + slot, live, 0.0)
    for k in range(depth):
        of_row = tl.load(left + k * x_k, live & (i < rows), 0.0).to(tl.float32)
        if weights is not None:
            of_row *= weight
        sums += of_row * tl.load(right + k * y_k, live & (j < columns), 0.0).to(tl.float32)
    return sums


@triton.jit(do_not_specialize=PER_GRAPH)
def _sum_segments(
    x: tl.tensor,
    of_x: tl.tensor,
    x_size: tl.tensor,
    x_k: tl.tensor,
    x_i: tl.tensor,
    y: tl.tensor,
    of_y: tl.tensor,
    y_size: tl.tensor,
    y_k: tl.tensor,
    y_j: tl.tensor,
    weights: tl.tensor,
    rowptr: tl.tensor,
    parts: tl.tensor,
    out: tl.tensor,
    pieces: tl.tensor,
    edges: tl.tensor,
    targets: tl.tensor,
    depth: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    SPLIT: tl.constexpr,
    SLOTS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    number = tl.program_id(0)
    target, start, end, whole = find_span(rowptr, number, pieces, edges, targets, SPLIT)
    i = tl.program_id(1) * HEIGHT + tl.arange(0, HEIGHT)[None, :, None]
    j = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)[None, None, :]
    sums = tl.zeros((SLOTS, HEIGHT, WIDTH), tl.float32)
    for first in range(start, end, SLOTS):
        slot = first + tl.arange(0, SLOTS)[:, None, None]
        sums = _outer_products(
            x, of_x, x_size, x_k, x_i, y, of_y, y_size, y_k, y_j, weights,
            slot, slot < end, i, j, depth, rows, columns, sums,
        )  # fmt: skip
    if whole:
        inside = (i < rows) & (j < columns)
        at = i * columns + j
        total = tl.sum(sums, 0, keep_dims=True)
        if number < pieces:
            tl.store(parts + number.to(tl.int64) * rows * columns + at, total, inside)
        else:
            tl.store(out + target * rows * columns + at, total, inside)


@triton.jit(do_not_specialize=_PER_BATCH)
def _add_by_atomics(
    x: tl.tensor,
    of_x: tl.tensor,
    x_size: tl.tensor,
    x_k: tl.tensor,
    x_i: tl.tensor,
    y: tl.tensor,
    of_y: tl.tensor,
    y_size: tl.tensor,
    y_k: tl.tensor,
    y_j: tl.tensor,
    weights: tl.tensor,
    key: tl.tensor,
    out: tl.tensor,
    slots: tl.tensor,
    depth: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    SLOTS: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    slot = tl.program_id(0).to(tl.int64) * SLOTS + tl.arange(0, SLOTS)[:, None, None]
    live = slot < slots
    i = tl.program_id(1) * HEIGHT + tl.arange(0, HEIGHT)[None, :, None]
    j = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)[None, None, :]
    sums = _outer_products(
        x, of_x, x_size, x_k, x_i, y, of_y, y_size, y_k, y_j, weights,
        slot, live, i, j, depth, rows, columns, tl.zeros((SLOTS, HEIGHT, WIDTH), tl.float32),
    )  # fmt: skip
    at = (_chosen(key, slot, live) * rows + i) * columns + j
    tl.atomic_add(out + at, sums, live & (i < rows) & (j < columns), sem="relaxed")
