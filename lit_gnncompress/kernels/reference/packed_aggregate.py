"""Plain torch: the meaning of ``packed_aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.edges import reduce_edges
from lit_gnncompress.kernels.reference.gather_dequantize import gather_dequantize


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

    def take(sources: Tensor) -> Tensor:
        return gather_dequantize(packed, lo, scale, bits, width, sources)

    return reduce_edges(take, width, rowptr, col, perm, weight, reduce, scale)
