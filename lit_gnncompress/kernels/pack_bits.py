"""Codes, one a byte, to packed rows."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.layout import check_bits, row_bytes
from lit_gnncompress.kernels.library import define


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Packs codes of 1 to 8 bits; :func:`unpack_bits` is the inverse.

    Args:
        codes: uint8, shape ``(N, F)``, each below ``2 ** bits``.
        bits: Bits of a code.

    Returns:
        uint8, shape ``(N, row_bytes(F, bits))``, laid out as ``layout.row_bytes`` tells.

    Raises:
        ValueError: Bits outside 1 to 8, codes that are not a uint8 matrix or that do not fit.
    """
    check_bits(bits)
    if codes.dtype != torch.uint8 or codes.dim() != 2:
        raise ValueError(
            f"codes must be a uint8 matrix (N, F), got {codes.dtype} of shape {tuple(codes.shape)}."
        )
    if bits < 8 and codes.numel() and not torch.compiler.is_compiling():
        highest = int(codes.max())
        if highest >> bits:
            raise ValueError(f"code {highest} does not fit into bits={bits}: it needs more.")
    return _pack_bits(codes, bits)


def _fake(codes: Tensor, bits: int) -> Tensor:
    return codes.new_empty(codes.size(0), row_bytes(codes.size(1), bits))


_pack_bits = define("pack_bits(Tensor codes, int bits) -> Tensor", _fake)
