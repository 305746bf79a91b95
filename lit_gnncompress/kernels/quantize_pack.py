"""Floating-point rows to packed rows, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.layout import check_bits, check_ranges, check_scale, row_bytes
from lit_gnncompress.kernels.library import define

NEAREST = -1
"""The seed that rounds to the nearest code."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def quantize_pack(
    x: Tensor, lo: Tensor, scale: Tensor, bits: int, seed: int | None = None
) -> Tensor:
    r"""Quantizes and packs rows; their codes never lie in memory one a byte.

    .. math:: q = \min(\max(\mathrm{round}((x - lo) / scale), 0), 2^{bits} - 1)

    in the precision of ``x``, fp32 at least, halves to the even code. NaN becomes code 0, and so
    does a row of scale 0.

    With a seed rounding is stochastic: :math:`v = (x - lo) / scale` becomes
    :math:`\lfloor v \rfloor + 1` where :math:`u < v - \lfloor v \rfloor`, which is right on
    average and leaves exact codes alone. The uniform :math:`u` is a hash of seed and place, the
    same on every device. With 32-bit arithmetic that wraps, :math:`i = row \cdot F + column`, and
    ``low`` and ``high`` the two halves of a 64-bit integer::

        mix(h): h ^= h >> 16; h *= 0x7feb352d; h ^= h >> 15; h *= 0x846ca68b; h ^= h >> 16
        key = mix(mix(mix(low(seed)) ^ high(seed)) ^ high(i))
        u = (mix(low(i) ^ key) >> 8) / 2 ** 24

    Args:
        x: float32, float16, bfloat16 or float64, shape ``(N, F)``.
        lo: Value of code 0, float32, shape ``(1,)`` or ``(N,)``.
        scale: Distance of two codes, float32, shape ``(1,)`` or ``(N,)``.
        bits: Bits of a code.
        seed: Rounds stochastically if given, 0 or more; to the nearest code otherwise.

    Returns:
        uint8, shape ``(N, row_bytes(F, bits))``, laid out as ``layout.row_bytes`` tells.

    Raises:
        ValueError: Bits outside 1 to 8, a negative seed, ranges of a wrong shape, dtype or
            device, a scale that is negative or not finite, or ``x`` that is not a floating-point
            matrix.
    """
    check_bits(bits)
    if x.dtype not in _DTYPES or x.dim() != 2:
        raise ValueError(
            f"x must be a matrix (N, F) of {', '.join(map(str, _DTYPES))}, got {x.dtype} of "
            f"shape {tuple(x.shape)}."
        )
    if seed is not None and not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} must lie in [0, 2**63), or be None to round to nearest.")
    check_ranges(lo, scale, x.size(0), x)
    check_scale(scale)
    return _quantize_pack(x, lo, scale, bits, NEAREST if seed is None else seed)


def _fake(x: Tensor, lo: Tensor, scale: Tensor, bits: int, seed: int) -> Tensor:
    return x.new_empty(x.size(0), row_bytes(x.size(1), bits), dtype=torch.uint8)


_quantize_pack = define(
    "quantize_pack(Tensor x, Tensor lo, Tensor scale, int bits, int seed) -> Tensor", _fake
)
