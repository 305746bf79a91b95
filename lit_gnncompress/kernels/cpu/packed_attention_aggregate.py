"""Numba: ``packed_attention_aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.cpu.attention_kernels import attend


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
    return attend(
        packed, lo, scale, bits, width, score_src, score_dst, rowptr, col, negative_slope,
        alpha_range, renormalize, None, 0.0, 0,
    )[0]  # fmt: skip
