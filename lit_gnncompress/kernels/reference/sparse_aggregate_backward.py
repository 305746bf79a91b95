"""Rows dequantized for some edges at a time: the gradient to the weights of edges."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.edges import weight_gradient
from lit_gnncompress.kernels.sparse_gather_dequantize import sparse_gather_dequantize


def sparse_aggregate_backward(
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
    weight: Tensor,
    reduce: str,
    out: Tensor | None,
    grad: Tensor,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.sparse_aggregate`."""
    rows = rowptr, columns, values, lo, scale, bits, width

    def take(sources: Tensor) -> Tensor:
        return sparse_gather_dequantize(*rows, sources, first)

    return weight_gradient(take, edge_rowptr, col, perm, weight, reduce, out, grad)
