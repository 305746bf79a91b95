"""Random numbers that a seed and a place determine."""

from __future__ import annotations

import triton
import triton.language as tl

_LOW = 0xFFFFFFFF


def fold_seed(seed: int) -> int:
    """The part of the hash that is the same for all places, as a signed number of 32 bits."""
    seed = max(0, seed)
    key = _mix_int(_mix_int(seed & _LOW) ^ seed >> 32)
    return key - (key >> 31 << 32)


def _mix_int(h: int) -> int:
    h ^= h >> 16
    h = h * 0x7FEB352D & _LOW
    h ^= h >> 15
    h = h * 0x846CA68B & _LOW
    return h ^ h >> 16


@triton.jit
def uniform(place: tl.tensor, key: tl.tensor) -> tl.tensor:
    """Numbers from [0, 1): those of ``reference/quantize_pack.py``, bit for bit.

    Args:
        place: int64: what is to be told apart.
        key: What :func:`fold_seed` made of the seed.
    """
    key = _mix(key.to(tl.uint32, bitcast=True) ^ (place >> 32).to(tl.uint32))
    return (_mix(place.to(tl.uint32) ^ key) >> 8).to(tl.float32) * 2.0**-24


@triton.jit
def _mix(h: tl.tensor) -> tl.tensor:
    h ^= h >> 16
    h *= 0x7FEB352D
    h ^= h >> 15
    h *= 0x846CA68B
    return h ^ (h >> 16)
