"""Packed rows to codes, one a byte."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.layout import check_packed
from lit_gnncompress.kernels.library import define


def unpack_bits(packed: Tensor, bits: int, width: int) -> Tensor:
    """Unpacks codes of 1 to 8 bits: the inverse of :func:`pack_bits`.

    Args:
        packed: uint8, shape ``(N, row_bytes(F, bits))``.
        bits: Bits of a code.
        width: Codes of a row, ``F``.

    Returns:
        uint8, shape ``(N, F)``.

    Raises:
        ValueError: Bits outside 1 to 8, or a matrix of another dtype or number of columns.
    """
    check_packed(packed, bits, width)
    return _unpack_bits(packed, bits, width)


def _fake(packed: Tensor, bits: int, width: int) -> Tensor:
    return packed.new_empty(packed.size(0), width)


_unpack_bits = define("unpack_bits(Tensor packed, int bits, int width) -> Tensor", _fake)
