"""Triton: ``attention_aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.cuda.attention import attention
from lit_gnncompress.kernels.cuda.rows import float_rows


def attention_aggregate(
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    rowptr: Tensor,
    col: Tensor,
    negative_slope: float,
    alpha_range: Tensor | None,
    renormalize: bool,
    perm: Tensor | None,
    dropout_p: float,
    seed: int,
    *_: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.attention_aggregate`."""
    return attention(
        float_rows(x), score_src, score_dst, rowptr, col, negative_slope, alpha_range, renormalize,
        perm, dropout_p, seed,
    )  # fmt: skip
