"""Chosen packed rows to floating-point rows."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.layout import check_index, check_packed, check_ranges
from lit_gnncompress.kernels.library import define


def gather_dequantize(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    index: Tensor | None = None,
) -> Tensor:
    """Rows ``lo + scale * code``, those of a mini-batch for instance.

    The product is rounded before ``lo`` is added, so that the result is what torch gives.

    Args:
        packed: uint8, shape ``(N, row_bytes(F, bits))``.
        lo: Value of code 0, float32, shape ``(1,)`` or ``(N,)``.
        scale: Distance of two codes, float32, shape ``(1,)`` or ``(N,)``.
        bits: Bits of a code.
        width: Codes of a row, ``F``.
        index: Rows to take, int64 or int32, shape ``(M,)``; all rows if ``None``.

    Returns:
        float32, shape ``(M, F)``.

    Raises:
        ValueError: Bits outside 1 to 8, or tensors that do not fit each other.
        IndexError: An index that is no row.
    """
    check_packed(packed, bits, width)
    check_ranges(lo, scale, packed.size(0), packed)
    if index is not None:
        check_index(index, packed.size(0), packed)
    return _gather_dequantize(packed, lo, scale, bits, width, index)


def _fake(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, index: Tensor | None
) -> Tensor:
    rows = packed.size(0) if index is None else index.size(0)
    return packed.new_empty(rows, width, dtype=torch.float32)


_gather_dequantize = define(
    "gather_dequantize(Tensor packed, Tensor lo, Tensor scale, int bits, int width, "
    "Tensor? index) -> Tensor",
    _fake,
)
