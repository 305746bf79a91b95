"""A linear layer on sparse rows of codes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_gnncompress.kernels.library import define
from lit_gnncompress.kernels.packed_linear import check_weight
from lit_gnncompress.kernels.sparse_layout import check_sparse
from lit_gnncompress.kernels.sparse_linear_backward import sparse_linear_backward


def sparse_linear(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    weight: Tensor,
    first: Tensor | None = None,
) -> Tensor:
    r"""``x @ weight.T`` for sparse ``x``, of which only the stored codes are read.

    .. math:: y_{no} = scale_n \sum_{f \in row\,n} q_{nf} w_{of} + lo_n \sum_f w_{of}

    Differentiable in ``weight``.

    Args:
        rowptr: Where rows begin in ``columns``, int64 or int32, shape ``(N + 1,)``.
        columns: Columns of the stored codes, uint16 or int32; or the gaps between them, uint8,
            see ``kernels.sparse_layout``.
        values: The stored codes, packed; 1 each if ``None``.
        lo: Value of code 0, that of what is not stored, float32, shape ``(1,)`` or ``(N,)``.
        scale: Distance of two codes, float32, shape ``(1,)`` or ``(N,)``.
        bits: Bits of a code.
        width: Columns of a row, ``F``.
        weight: float32, shape ``(O, F)``.
        first: Codes before each row, for gaps with ``values``.

    Returns:
        float32, shape ``(N, O)``.

    Raises:
        ValueError: Bits outside 1 to 8, pointers that do not run from 0 to the number of entries
            or that fall, or tensors that do not fit each other.
        IndexError: A column that is none of 0 to ``F`` − 1.
    """
    check_sparse(rowptr, columns, values, lo, scale, bits, width, first)
    check_weight(weight, width, rowptr)
    return _sparse_linear(rowptr, columns, values, lo, scale, bits, width, weight, first)


def _fake(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    weight: Tensor,
    first: Tensor | None = None,
) -> Tensor:
    return weight.new_empty(rowptr.size(0) - 1, weight.size(0))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    rowptr, columns, values, lo, scale, ctx.bits, ctx.width, _, first = inputs
    ctx.save_for_backward(rowptr, columns, values, lo, scale, first)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_weight = None
    if ctx.needs_input_grad[7]:
        rowptr, columns, values, lo, scale, first = ctx.saved_tensors
        grad_weight = sparse_linear_backward(
            rowptr, columns, values, lo, scale, ctx.bits, ctx.width, grad, first
        )
    return None, None, None, None, None, None, None, grad_weight, None


_sparse_linear = define(
    "sparse_linear(Tensor rowptr, Tensor columns, Tensor? values, Tensor lo, Tensor scale, "
    "int bits, int width, Tensor weight, Tensor? first=None) -> Tensor",
    _fake,
    _backward,
    _setup_context,
    folders={"CUDA": "reference"},
)
