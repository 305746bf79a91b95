"""Plain torch: the meaning of ``unpack_bits``."""

from __future__ import annotations

import torch
from torch import Tensor


def unpack_bits(packed: Tensor, bits: int, width: int) -> Tensor:
    """See :func:`lit_gnncompress.kernels.unpack_bits`."""
    eight = torch.arange(8, dtype=torch.uint8, device=packed.device)
    each_bit = (packed.unsqueeze(2) >> eight & 1).flatten(1)[:, : width * bits]
    places = 2 ** torch.arange(bits, dtype=torch.int32, device=packed.device)
    each_bit = each_bit.reshape(packed.size(0), width, bits)
    return (each_bit * places).sum(2).to(torch.uint8)
