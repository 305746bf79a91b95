"""Plain torch: the meaning of ``gather_dequantize``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.unpack_bits import unpack_bits


def gather_dequantize(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, index: Tensor | None
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.gather_dequantize`."""
    if index is not None:
        packed = packed.index_select(0, index)
        lo = lo if lo.size(0) == 1 else lo.index_select(0, index)
        scale = scale if scale.size(0) == 1 else scale.index_select(0, index)
    return unpack_bits(packed, bits, width) * scale.unsqueeze(1) + lo.unsqueeze(1)
