"""Triton: ``packed_aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.cuda.reduce_edges import reduce_edges
from lit_gnncompress.kernels.cuda.rows import packed_rows


def packed_aggregate(
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
    """See :func:`lit_gnncompress.kernels.packed_aggregate`."""
    heads = weight.size(1) if weight is not None and weight.dim() == 2 else 1
    rows = packed_rows(packed, lo, scale, bits, width, heads)
    return reduce_edges(rows, rowptr, col, perm, weight, reduce)
