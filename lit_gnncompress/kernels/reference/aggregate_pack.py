"""Plain torch: the meaning of ``aggregate_pack``."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.reference.edges import reduce_edges
from lit_gnncompress.kernels.reference.quantize_pack import quantize_pack


def aggregate_pack(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    bits: int,
    lo: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.aggregate_pack`."""
    width = x.size(1)
    rows = reduce_edges(lambda sources: x[sources], width, rowptr, col, perm, weight, reduce, x)
    rows = rows if bias is None else rows + bias
    rows = rows if residual is None else rows + residual
    rows = rows.relu() if relu else rows
    finite = torch.isfinite(rows).all()
    if lo is not None and scale is not None:
        nothing = x.new_empty(0)
        return quantize_pack(rows, lo, scale, bits, -1), nothing, nothing.clone(), finite
    lo = rows.amin(1)
    scale = (rows.amax(1) - lo) / (2**bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    return quantize_pack(rows, lo, scale, bits, -1), lo, scale, finite
