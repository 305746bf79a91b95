"""Plain torch: the meaning of ``activate_pack``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gnncompress.kernels.reference.quantize_pack import quantize_pack


def activate_pack(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    bits: int,
    lo: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.activate_pack`."""
    rows = x if bias is None else x + bias
    rows = rows if residual is None else rows + residual
    rows = _ACTIVATIONS[activation](rows)
    finite = torch.isfinite(rows).all()
    if lo is not None and scale is not None:
        nothing = x.new_empty(0)
        return quantize_pack(rows, lo, scale, bits, -1), nothing, nothing.clone(), finite
    lo = rows.amin(1)
    scale = (rows.amax(1) - lo) / (2**bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    return quantize_pack(rows, lo, scale, bits, -1), lo, scale, finite


_ACTIVATIONS = {"none": lambda rows: rows, "relu": F.relu, "elu": F.elu}
