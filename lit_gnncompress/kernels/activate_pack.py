"""Floating-point rows to packed rows, with bias and activation on the way."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.layout import check_bits, check_ranges, check_scale, row_bytes
from lit_gnncompress.kernels.library import define

ACTIVATIONS = ("none", "relu", "elu")


def activate_pack(
    x: Tensor,
    bits: int,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
    lo: Tensor | None = None,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""What :func:`quantize_pack` makes of rows of which one at a time is activated.

    .. math:: y_{nf} = a(x_{nf} + b_f + z_{nf})

    Codes are those of ``y``, rounded to nearest. Without ``lo`` and ``scale`` each row has a range
    of its own, from its minimum to its maximum; the scale of a row of one value is 1. Not
    differentiable.

    Args:
        x: float32, shape ``(N, F)`` with columns.
        bits: Bits of a code.
        bias: Added to each row, float32, shape ``(F,)``.
        residual: Rows that are added then, ``z``, float32, shape ``(N, F)``.
        activation: ``"none"``, ``"relu"`` or ``"elu"`` (of :math:`\alpha = 1`).
        lo: Value of code 0 of all rows, float32, shape ``(1,)``.
        scale: Distance of two codes of all rows, likewise.

    Returns:
        uint8, shape ``(N, row_bytes(F, bits))``; ``lo`` and ``scale`` of each row, float32, shape
        ``(N,)``, or ``(0,)`` where they were given; and whether all rows are finite, bool, shape
        ``()``: codes of one that is not mean nothing.

    Raises:
        ValueError: Bits outside 1 to 8, tensors that do not fit each other, another activation, or
            one of ``lo`` and ``scale`` without the other.
    """
    check_bits(bits)
    if x.dtype != torch.float32 or x.dim() != 2 or x.size(1) == 0:
        raise ValueError(
            f"x must be a float32 matrix (N, F) with columns, got {x.dtype} of shape "
            f"{tuple(x.shape)}."
        )
    check_finish(x, x.size(0), bias, residual, activation, lo, scale)
    return _activate_pack(x, bias, residual, activation, bits, lo, scale)


def check_finish(
    x: Tensor,
    num_rows: int,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    lo: Tensor | None,
    scale: Tensor | None,
) -> None:
    """Refuses what cannot be done to ``num_rows`` rows as wide as ``x``.

    Raises:
        ValueError: As :func:`activate_pack`.
    """
    for name, other, shape, what in (
        ("bias", bias, (x.size(1),), "one for each column"),
        ("residual", residual, (num_rows, x.size(1)), "as large as the rows"),
    ):
        if other is None:
            continue
        if other.dtype != torch.float32 or tuple(other.shape) != shape:
            raise ValueError(
                f"{name} must be float32 of shape {shape}, {what}, got {other.dtype} of shape "
                f"{tuple(other.shape)}."
            )
        if other.device != x.device:
            raise ValueError(f"{name} is on {other.device}, x is on {x.device}: move one of them.")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r} is none of {', '.join(ACTIVATIONS)}.")
    if (lo is None) != (scale is None):
        raise ValueError("lo and scale belong together: give both, or none.")
    if lo is not None and scale is not None:
        check_ranges(lo, scale, 1, x)
        check_scale(scale)


def empty_results(
    x: Tensor, rows: int, bits: int, lo: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What packs ``rows`` rows as wide as those of ``x`` returns, before it is filled.

    Packed rows, their own values of code 0 and distances of two codes, of which there are none with
    a shared ``lo``, and whether all are finite.
    """
    own = rows if lo is None else 0
    packed = x.new_empty(rows, row_bytes(x.size(1), bits), dtype=torch.uint8)
    return packed, x.new_empty(own), x.new_empty(own), x.new_empty((), dtype=torch.bool)


def _fake(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    bits: int,
    lo: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return empty_results(x, x.size(0), bits, lo)


_activate_pack = define(
    "activate_pack(Tensor x, Tensor? bias, Tensor? residual, str activation, int bits, Tensor? lo, "
    "Tensor? scale) -> (Tensor packed, Tensor row_lo, Tensor row_scale, Tensor finite)",
    _fake,
    folders={"CUDA": "reference"},
)
