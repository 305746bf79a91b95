"""Rows of floats reduced along edges."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.cpu.reduce_rows import reduce_rows
from lit_gnncompress.kernels.cpu.vector import FLOAT


def aggregate(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
    rowptr_t: Tensor | None,
    col_t: Tensor | None,
    perm_t: Tensor | None,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.aggregate`."""
    return reduce_rows(x, None, None, FLOAT, x.size(1), rowptr, col, perm, weight, reduce)
