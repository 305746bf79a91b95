"""Triton: ``packed_attention_aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.cuda.attention import attention
from lit_gnncompress.kernels.cuda.rows import packed_rows


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
    return attention(
        packed_rows(packed, lo, scale, bits, width, score_src.size(1)), score_src, score_dst,
        rowptr, col, negative_slope, alpha_range, renormalize, None, 0.0, 0,
    )[0]  # fmt: skip
