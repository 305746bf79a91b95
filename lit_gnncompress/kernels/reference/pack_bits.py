"""Plain torch: the meaning of ``pack_bits``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gnncompress.kernels.layout import row_bytes


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """See :func:`lit_gnncompress.kernels.pack_bits`."""
    rows, width = codes.shape
    size = row_bytes(width, bits)
    each_bit = codes.unsqueeze(2) >> torch.arange(bits, dtype=torch.uint8, device=codes.device) & 1
    each_bit = F.pad(each_bit.flatten(1), (0, 8 * size - width * bits)).view(rows, size, 8)
    places = 2 ** torch.arange(8, dtype=torch.int32, device=codes.device)
    return (each_bit * places).sum(2).to(torch.uint8)
