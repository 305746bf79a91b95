"""Plain torch: the meaning of ``quantize_pack``."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.reference.pack_bits import pack_bits

_LOW = 0xFFFFFFFF


def quantize_pack(x: Tensor, lo: Tensor, scale: Tensor, bits: int, seed: int) -> Tensor:
    """See :func:`lit_gnncompress.kernels.quantize_pack`; a negative seed rounds to nearest."""
    x = x if x.dtype == torch.float64 else x.float()
    lo, scale = lo.unsqueeze(1), scale.unsqueeze(1)
    steps = (x - lo) / scale
    if seed < 0:
        steps = steps.round()
    else:
        below = steps.floor()
        place = torch.arange(x.numel(), device=x.device).view_as(x)
        steps = below + (uniform(place, seed) < steps - below)
    # Neither NaN nor a step of a range that is a point is above zero.
    steps = torch.where((steps > 0) & (scale > 0), steps, 0.0).clamp(max=2**bits - 1)
    return pack_bits(steps.to(torch.uint8), bits)


def uniform(place: Tensor, seed: int) -> Tensor:
    """A number from [0, 1) for every place, int64."""
    key = _mix(torch.tensor(seed & _LOW, device=place.device))
    key = _mix(_mix(key ^ seed >> 32) ^ place >> 32)
    return (_mix(place & _LOW ^ key) >> 8).float() * 2**-24


def _mix(h: Tensor) -> Tensor:
    """32-bit arithmetic in int64: what overflows is above the bits that are kept."""
    h = h ^ h >> 16
    h = h * 0x7FEB352D & _LOW
    h = h ^ h >> 15
    h = h * 0x846CA68B & _LOW
    return h ^ h >> 16
