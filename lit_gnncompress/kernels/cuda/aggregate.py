"""Triton: ``aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.cuda.reduce_edges import reduce_edges
from lit_gnncompress.kernels.cuda.rows import float_rows


def aggregate(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
    *_: Tensor | None,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.aggregate`."""
    return reduce_edges(float_rows(x), rowptr, col, perm, weight, reduce)
