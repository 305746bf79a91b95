"""Plain torch: the meaning of ``sparse_aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.edges import reduce_edges
from lit_gnncompress.kernels.reference.sparse_gather_dequantize import sparse_gather_dequantize


def sparse_aggregate(
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
    """See :func:`lit_gnncompress.kernels.sparse_aggregate`."""
    rows = rowptr, columns, values, lo, scale, bits, width

    def take(sources: Tensor) -> Tensor:
        return sparse_gather_dequantize(*rows, sources, first)

    return reduce_edges(take, width, edge_rowptr, col, perm, weight, reduce, scale)
