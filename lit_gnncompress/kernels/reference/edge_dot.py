"""Plain torch: the meaning of ``edge_dot``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.edges import by_head, edge_chunks


def edge_dot(
    x: Tensor, y: Tensor, rowptr: Tensor, col: Tensor, perm: Tensor | None, heads: int
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.edge_dot`."""
    out = x.new_empty(col.size(0), heads)
    for row, sources, edges in edge_chunks(rowptr, col, perm, x.size(1)):
        out[edges] = by_head(x[sources] * y[row], heads)
    return out
