"""Messages along edges, reduced at their targets, from sparse rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_gnncompress.kernels.adjacency import (
    Adjacency,
    check_edge_weight,
    check_reduce,
    check_source_rows,
)
from lit_gnncompress.kernels.library import define
from lit_gnncompress.kernels.sparse_aggregate_backward import sparse_aggregate_backward
from lit_gnncompress.kernels.sparse_layout import check_sparse


def sparse_aggregate(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    adjacency: Adjacency,
    weight: Tensor | None = None,
    reduce: str = "sum",
    first: Tensor | None = None,
) -> Tensor:
    """What :func:`aggregate` gives of sparse rows, of which only stored codes are read.

    Differentiable in ``weight``.

    Args:
        rowptr: Where rows begin in ``columns``, int64 or int32, shape ``(N + 1,)``.
        columns: Columns of the stored codes, uint16 or int32; or the gaps between them, uint8,
            see ``kernels.sparse_layout``.
        values: The stored codes, packed; 1 each if ``None``.
        lo: Value of code 0, float32, shape ``(1,)`` or ``(N,)``.
        scale: Distance of two codes, float32, shape ``(1,)`` or ``(N,)``, not negative.
        bits: Bits of a code.
        width: Columns of a row, ``F``.
        adjacency: The edges.
        weight: float32, shape ``(E,)``, or ``(E, H)`` with ``F = H C``: each head weighs ``C``
            columns. In the caller's order of edges. 1 each if ``None``.
        reduce: ``"sum"``, ``"mean"`` or ``"max"``.
        first: Codes before each row, for gaps with ``values``.

    Returns:
        float32, shape ``(M, F)``.

    Raises:
        ValueError: Tensors that do not fit each other, or another ``reduce``.
    """
    check_reduce(reduce)
    check_sparse(rowptr, columns, values, lo, scale, bits, width, first)
    check_source_rows("columns", columns, rowptr.size(0) - 1, adjacency)
    check_edge_weight(weight, width, adjacency)
    return _sparse_aggregate(
        rowptr,
        columns,
        values,
        lo,
        scale,
        bits,
        width,
        first,
        adjacency.rowptr,
        adjacency.col,
        adjacency.perm,
        weight,
        reduce,
    )


def _fake(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    first: Tensor | None,
    edge_rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
) -> Tensor:
    return scale.new_empty(edge_rowptr.size(0) - 1, width)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.bits, ctx.width, first, edge_rowptr, col, perm, weight, ctx.reduce = inputs
    out = output if ctx.reduce == "max" else None
    ctx.save_for_backward(*tensors, first, edge_rowptr, col, perm, weight, out)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_weight = None
    if ctx.needs_input_grad[11]:
        *tensors, first, edge_rowptr, col, perm, weight, out = ctx.saved_tensors
        rows = *tensors, ctx.bits, ctx.width, first
        edges = edge_rowptr, col, perm, weight
        grad_weight = sparse_aggregate_backward(*rows, *edges, ctx.reduce, out, grad)
    return *[None] * 11, grad_weight, None


_sparse_aggregate = define(
    "sparse_aggregate(Tensor rowptr, Tensor columns, Tensor? values, Tensor lo, Tensor scale, "
    "int bits, int width, Tensor? first, Tensor edge_rowptr, Tensor col, Tensor? perm, "
    "Tensor? weight, str reduce) -> Tensor",
    _fake,
    _backward,
    _setup_context,
    folders={"CUDA": "reference"},
)
