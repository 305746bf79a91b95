"""Plain torch: the meaning of ``sparse_linear_backward``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.sparse_gather_dequantize import sparse_gather_dequantize


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
    """See :func:`lit_gnncompress.kernels.sparse_linear_backward.sparse_linear_backward`."""
    x = sparse_gather_dequantize(rowptr, columns, values, lo, scale, bits, width, None, first)
    return grad.T @ x
