"""Numba: ``attention_aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.cpu.attention_kernels import attend


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
    none = x.new_zeros(1)
    return attend(
        x, none, none, 0, x.size(1), score_src, score_dst, rowptr, col, negative_slope,
        alpha_range, renormalize, perm, dropout_p, seed,
    )  # fmt: skip
