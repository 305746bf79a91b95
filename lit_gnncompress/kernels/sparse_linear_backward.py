"""The gradient of a linear layer on sparse rows of codes."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.library import define
from lit_gnncompress.kernels.packed_linear_backward import check_grad
from lit_gnncompress.kernels.sparse_layout import check_sparse


def sparse_linear_backward(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    grad: Tensor,
    first: Tensor | None = None,
) -> Tensor:
    """``grad.T @ x`` for sparse ``x``; the result does not depend on the number of threads.

    Args:
        rowptr: As in :func:`~lit_gnncompress.kernels.sparse_linear.sparse_linear`, like all that
            are not told here.
        columns: Columns of the stored codes, or a stream of gaps.
        values: The stored codes.
        lo: Value of code 0.
        scale: Distance of two codes.
        bits: Bits of a stored code.
        width: Columns of ``x``, ``F``.
        grad: Gradient of the output, float32, shape ``(N, O)``.
        first: Number of codes before each row.

    Returns:
        Gradient of the weight, float32, shape ``(O, F)``.

    Raises:
        ValueError: Tensors that do not fit each other.
        IndexError: A column outside 0 to F − 1.
    """
    check_sparse(rowptr, columns, values, lo, scale, bits, width, first)
    check_grad(grad, rowptr.size(0) - 1, rowptr)
    return _sparse_linear_backward(rowptr, columns, values, lo, scale, bits, width, grad, first)


def _fake(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    grad: Tensor,
    first: Tensor | None = None,
) -> Tensor:
    return grad.new_empty(grad.size(1), width)


_sparse_linear_backward = define(
    "sparse_linear_backward(Tensor rowptr, Tensor columns, Tensor? values, Tensor lo, "
    "Tensor scale, int bits, int width, Tensor grad, Tensor? first=None) -> Tensor",
    _fake,
    folders={"CUDA": "reference"},
)
