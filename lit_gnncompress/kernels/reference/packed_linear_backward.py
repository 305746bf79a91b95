"""Plain torch: the meaning of ``packed_linear_backward``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.gather_dequantize import gather_dequantize


def packed_linear_backward(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, grad: Tensor
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_linear_backward.packed_linear_backward`."""
    return grad.T @ gather_dequantize(packed, lo, scale, bits, width, None)
