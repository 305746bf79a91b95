"""Plain torch: the meaning of ``attention_range``."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.reference import attention_weights as weights


def attention_range(
    score_src: Tensor, score_dst: Tensor, rowptr: Tensor, col: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.attention_range.attention_range`."""
    target = weights.targets(rowptr)
    alpha = weights.softmax(score_src, score_dst, target, col, negative_slope)[0]
    none = score_dst.new_full((score_dst.size(0),), torch.inf)
    return (
        none.scatter_reduce(0, target, alpha.amin(1), "amin"),
        none.neg().scatter_reduce(0, target, alpha.amax(1), "amax"),
    )
