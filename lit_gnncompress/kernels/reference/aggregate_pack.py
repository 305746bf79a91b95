"""Plain torch: the meaning of ``aggregate_pack``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.activate_pack import activate_pack
from lit_gnncompress.kernels.reference.edges import reduce_edges


def aggregate_pack(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    bits: int,
    lo: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.aggregate_pack`."""
    width = x.size(1)
    rows = reduce_edges(lambda sources: x[sources], width, rowptr, col, perm, weight, reduce, x)
    return activate_pack(rows, bias, residual, activation, bits, lo, scale)
