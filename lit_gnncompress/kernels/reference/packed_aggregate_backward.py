"""Rows dequantized for some edges at a time: the gradient to the weights of edges."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.gather_dequantize import gather_dequantize
from lit_gnncompress.kernels.reference.edges import weight_gradient


def packed_aggregate_backward(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor,
    reduce: str,
    out: Tensor | None,
    grad: Tensor,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_aggregate`."""

    def take(sources: Tensor) -> Tensor:
        return gather_dequantize(packed, lo, scale, bits, width, sources)

    return weight_gradient(take, rowptr, col, perm, weight, reduce, out, grad)
