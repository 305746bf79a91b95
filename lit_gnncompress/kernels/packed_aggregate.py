"""Messages along edges, reduced at their targets, from packed rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_gnncompress.kernels.adjacency import (
    Adjacency,
    check_edge_weight,
    check_reduce,
    check_source_rows,
)
from lit_gnncompress.kernels.layout import check_packed, check_ranges
from lit_gnncompress.kernels.library import define
from lit_gnncompress.kernels.packed_aggregate_backward import packed_aggregate_backward


def packed_aggregate(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    adjacency: Adjacency,
    weight: Tensor | None = None,
    reduce: str = "sum",
) -> Tensor:
    r"""What :func:`aggregate` gives of the rows ``lo + scale * code``, which never exist.

    .. math:: y_{tf} = \sum_{e:\,target(e)=t} w_e s_{n} q_{nf} + \sum_e w_e\, lo_n,
        \quad n = source(e)

    Differentiable in ``weight``.

    Args:
        packed: Rows of sources, uint8, shape ``(N, row_bytes(F, bits))``.
        lo: Value of code 0, float32, shape ``(1,)`` or ``(N,)``.
        scale: Distance of two codes, float32, shape ``(1,)`` or ``(N,)``, not negative.
        bits: Bits of a code.
        width: Codes of a row, ``F``.
        adjacency: The edges.
        weight: float32, shape ``(E,)``, or ``(E, H)`` with ``F = H C``: each head weighs ``C``
            columns. In the caller's order of edges. 1 each if ``None``.
        reduce: ``"sum"``, ``"mean"`` or ``"max"``.

    Returns:
        float32, shape ``(M, F)``.

    Raises:
        ValueError: Bits outside 1 to 8, tensors that do not fit each other, or another ``reduce``.
    """
    check_reduce(reduce)
    check_packed(packed, bits, width)
    check_source_rows("packed", packed, packed.size(0), adjacency)
    check_ranges(lo, scale, packed.size(0), packed)
    check_edge_weight(weight, width, adjacency)
    return _packed_aggregate(
        packed,
        lo,
        scale,
        bits,
        width,
        adjacency.rowptr,
        adjacency.col,
        adjacency.perm,
        weight,
        reduce,
    )


def _fake(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
) -> Tensor:
    return scale.new_empty(rowptr.size(0) - 1, width)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    packed, lo, scale, ctx.bits, ctx.width, rowptr, col, perm, weight, ctx.reduce = inputs
    out = output if ctx.reduce == "max" else None
    ctx.save_for_backward(packed, lo, scale, rowptr, col, perm, weight, out)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_weight = None
    if ctx.needs_input_grad[8]:
        packed, lo, scale, *edges, weight, out = ctx.saved_tensors
        rows = packed, lo, scale, ctx.bits, ctx.width
        grad_weight = packed_aggregate_backward(*rows, *edges, weight, ctx.reduce, out, grad)
    return *[None] * 8, grad_weight, None


_packed_aggregate = define(
    "packed_aggregate(Tensor packed, Tensor lo, Tensor scale, int bits, int width, "
    "Tensor rowptr, Tensor col, Tensor? perm, Tensor? weight, str reduce) -> Tensor",
    _fake,
    _backward,
    _setup_context,
)
