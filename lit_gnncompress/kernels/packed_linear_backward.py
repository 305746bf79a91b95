"""The gradient of a linear layer on packed rows."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.layout import check_packed, check_ranges
from lit_gnncompress.kernels.library import define


def packed_linear_backward(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, grad: Tensor
) -> Tensor:
    r"""``grad.T @ x`` for packed ``x``, of which at most 64 rows are ever unpacked.

    Args:
        packed: uint8, shape ``(N, row_bytes(F, bits))``.
        lo: Value of code 0, float32, shape ``(1,)`` or ``(N,)``.
        scale: Distance of two codes, float32, shape ``(1,)`` or ``(N,)``.
        bits: Bits of a code.
        width: Codes of a row, ``F``.
        grad: Gradient of the output, float32, shape ``(N, O)``.

    Returns:
        Gradient of the weight, float32, shape ``(O, F)``.

    Raises:
        ValueError: Bits outside 1 to 8, or tensors that do not fit each other.
    """
    check_packed(packed, bits, width)
    check_ranges(lo, scale, packed.size(0), packed)
    check_grad(grad, packed.size(0), packed)
    return _packed_linear_backward(packed, lo, scale, bits, width, grad)


def check_grad(grad: Tensor, rows: int, like: Tensor) -> None:
    """Refuses what is no gradient of ``rows`` rows on the device of ``like``.

    Raises:
        ValueError: Another dtype, number of rows or device.
    """
    if grad.dtype != torch.float32 or grad.dim() != 2 or grad.size(0) != rows:
        raise ValueError(
            f"grad must be float32 of shape ({rows}, O), one row for each of x, got "
            f"{grad.dtype} of shape {tuple(grad.shape)}."
        )
    if grad.device != like.device:
        raise ValueError(
            f"grad is on {grad.device}, the rows are on {like.device}: move one of them."
        )


def _fake(packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, grad: Tensor) -> Tensor:
    return grad.new_empty(grad.size(1), width)


_packed_linear_backward = define(
    "packed_linear_backward(Tensor packed, Tensor lo, Tensor scale, int bits, int width, "
    "Tensor grad) -> Tensor",
    _fake,
)
