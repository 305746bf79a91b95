"""A linear layer on packed rows with an 8-bit weight: an integer product."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.layout import check_packed, check_ranges
from lit_gnncompress.kernels.library import define
from lit_gnncompress.kernels.packed_linear import check_weight


def packed_linear_int8(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    weight: Tensor,
    weight_scale: Tensor,
) -> Tensor:
    r"""``x @ (weight_scale * weight).T`` for packed ``x`` and 8-bit ``weight``.

    .. math:: y_{no} = s_o \left(scale_n \sum_f q_{nf} w_{of} + lo_n \sum_f w_{of}\right)

    The sums are of integers and exact. For inference: it has no gradient.

    Args:
        packed: uint8, shape ``(N, row_bytes(F, bits))``.
        lo: Value of code 0, float32, shape ``(1,)`` or ``(N,)``.
        scale: Distance of two codes, float32, shape ``(1,)`` or ``(N,)``.
        bits: Bits of a code.
        width: Codes of a row, ``F``.
        weight: int8, shape ``(O, F)``, as :func:`quantize_weight` gives it.
        weight_scale: Distance of two codes of each output, float32, shape ``(O,)``.

    Returns:
        float32, shape ``(N, O)``.

    Raises:
        ValueError: Bits outside 1 to 8, or tensors that do not fit each other.
    """
    check_packed(packed, bits, width)
    check_ranges(lo, scale, packed.size(0), packed)
    check_weight(weight, width, packed, torch.int8)
    if weight_scale.dtype != torch.float32 or weight_scale.shape != weight.shape[:1]:
        raise ValueError(
            f"weight_scale must be float32 of shape ({weight.size(0)},), one for each output, "
            f"got {weight_scale.dtype} of shape {tuple(weight_scale.shape)}."
        )
    if weight_scale.device != packed.device:
        raise ValueError(
            f"weight_scale is on {weight_scale.device}, the rows are on {packed.device}: move "
            f"one of them."
        )
    return _packed_linear_int8(packed, lo, scale, bits, width, weight, weight_scale)


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds a weight to int8, with a range for each output that is symmetric about zero.

    Args:
        weight: Floating point, shape ``(O, F)``.

    Returns:
        Codes −127 to 127, int8, shape ``(O, F)``, and their distance, float32, shape ``(O,)``.

    Raises:
        ValueError: Not a floating-point matrix.
    """
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(
            f"weight must be a floating-point matrix (O, F), got {weight.dtype} of shape "
            f"{tuple(weight.shape)}."
        )
    weight = weight.detach().float()
    if weight.size(1) == 0:
        return weight.to(torch.int8), weight.new_zeros(weight.size(0))
    scale = weight.abs().amax(1) / 127
    codes = weight.div(torch.where(scale > 0, scale, 1).unsqueeze(1)).round_()
    return codes.to(torch.int8), scale


def _fake(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    weight: Tensor,
    weight_scale: Tensor,
) -> Tensor:
    return lo.new_empty(packed.size(0), weight.size(0))


_packed_linear_int8 = define(
    "packed_linear_int8(Tensor packed, Tensor lo, Tensor scale, int bits, int width, "
    "Tensor weight, Tensor weight_scale) -> Tensor",
    _fake,
)
