"""Plain torch: the meaning of ``aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.edges import reduce_edges


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
    return reduce_edges(lambda sources: x[sources], x.size(1), rowptr, col, perm, weight, reduce, x)
