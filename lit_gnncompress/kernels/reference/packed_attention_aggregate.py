"""Plain torch: the meaning of ``packed_attention_aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.attention_aggregate import attention_aggregate
from lit_gnncompress.kernels.reference.gather_dequantize import gather_dequantize


def packed_attention_aggregate(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    score_src: Tensor,
    score_dst: Tensor,
    rowptr: Tensor,
    col: Tensor,
    negative_slope: float,
    alpha_range: Tensor | None,
    renormalize: bool,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_attention_aggregate`."""
    x = gather_dequantize(packed, lo, scale, bits, width, None)
    return attention_aggregate(
        x, score_src, score_dst, rowptr, col, negative_slope, alpha_range, renormalize
    )[0]
