"""Plain torch: the meaning of ``packed_linear_int8``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.unpack_bits import unpack_bits


def packed_linear_int8(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    weight: Tensor,
    weight_scale: Tensor,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_linear_int8`."""
    # Every sum is a whole number below 2 ** 53: doubles hold it, and have a product on any device.
    sums = unpack_bits(packed, bits, width).double() @ weight.double().T
    of_lo = weight.double().sum(1).float()
    return (scale.unsqueeze(1) * sums.float() + lo.unsqueeze(1) * of_lo) * weight_scale
