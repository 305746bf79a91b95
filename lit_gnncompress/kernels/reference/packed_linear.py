"""Plain torch: the meaning of ``packed_linear``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lit_gnncompress.kernels.reference.gather_dequantize import gather_dequantize


def packed_linear(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, weight: Tensor
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_linear`."""
    return F.linear(gather_dequantize(packed, lo, scale, bits, width, None), weight)
