"""A linear layer on packed rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_gnncompress.kernels.layout import check_packed, check_ranges
from lit_gnncompress.kernels.library import define
from lit_gnncompress.kernels.packed_linear_backward import packed_linear_backward


def packed_linear(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, weight: Tensor
) -> Tensor:
    r"""``x @ weight.T`` for packed ``x``, of which at most 64 rows are ever unpacked.

    .. math:: y_{no} = scale_n \sum_f q_{nf} w_{of} + lo_n \sum_f w_{of}

    At 1 and 2 bits sums of weights are looked up, by four bits of a row at a time. Differentiable
    in ``weight``.

    Args:
        packed: uint8, shape ``(N, row_bytes(F, bits))``.
        lo: Value of code 0, float32, shape ``(1,)`` or ``(N,)``.
        scale: Distance of two codes, float32, shape ``(1,)`` or ``(N,)``.
        bits: Bits of a code.
        width: Codes of a row, ``F``.
        weight: float32, shape ``(O, F)``.

    Returns:
        float32, shape ``(N, O)``.

    Raises:
        ValueError: Bits outside 1 to 8, or tensors that do not fit each other.
    """
    check_packed(packed, bits, width)
    check_ranges(lo, scale, packed.size(0), packed)
    check_weight(weight, width, packed)
    return _packed_linear(packed, lo, scale, bits, width, weight)


def check_weight(
    weight: Tensor, width: int, like: Tensor, dtype: torch.dtype = torch.float32
) -> None:
    """Refuses what is no weight for rows of ``width`` features on the device of ``like``.

    Raises:
        ValueError: Another dtype, number of columns or device.
    """
    if weight.dtype != dtype or weight.dim() != 2 or weight.size(1) != width:
        raise ValueError(
            f"weight must be {dtype} of shape (O, {width}), one column a feature, got "
            f"{weight.dtype} of shape {tuple(weight.shape)}."
        )
    if weight.device != like.device:
        raise ValueError(
            f"weight is on {weight.device}, the rows are on {like.device}: move one of them."
        )


def _fake(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, weight: Tensor
) -> Tensor:
    return weight.new_empty(packed.size(0), weight.size(0))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    packed, lo, scale, ctx.bits, ctx.width, _ = inputs
    ctx.save_for_backward(packed, lo, scale)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_weight = None
    if ctx.needs_input_grad[5]:
        packed, lo, scale = ctx.saved_tensors
        grad_weight = packed_linear_backward(packed, lo, scale, ctx.bits, ctx.width, grad)
    return None, None, None, None, None, grad_weight


_packed_linear = define(
    "packed_linear(Tensor packed, Tensor lo, Tensor scale, int bits, int width, Tensor weight) "
    "-> Tensor",
    _fake,
    _backward,
    _setup_context,
)
