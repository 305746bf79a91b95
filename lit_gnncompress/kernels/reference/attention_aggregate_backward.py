"""Plain torch: the meaning of ``attention_aggregate_backward``."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.reference import attention_weights as weights


def attention_aggregate_backward(
    grad: Tensor,
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
    """See :func:`lit_gnncompress.kernels.attention_aggregate_backward`."""
    heads = score_src.size(1)
    target, source = weights.targets(rowptr), col.long()
    alpha = weights.softmax(score_src, score_dst, target, col, negative_slope)[0]
    grad, values = (t.view(t.size(0), heads, t.size(1) // heads) for t in (grad, x))
    weight, dalpha = alpha, (grad[target] * values[source]).sum(2)
    keep = torch.ones_like(alpha)
    if dropout_p > 0:
        keep = weights.kept(alpha, perm, dropout_p, seed)
    dalpha = dalpha * keep
    if alpha_range is not None:
        weight, divisor = weights.rounded(alpha, target, alpha_range, renormalize, score_dst)
        if renormalize:
            mean = weights.row_sums(weight * dalpha, target, score_dst)[target]
            untouched = (alpha_range[:, 2:] < 0).expand(score_dst.size(0), 1)[target]
            dalpha = torch.where(untouched, dalpha, (dalpha - mean) / divisor)
    mean = weights.row_sums(alpha * dalpha, target, score_dst)[target]
    below = score_src[source] + score_dst[target] <= 0
    dscore = alpha * (dalpha - mean) * torch.where(below, negative_slope, 1.0)
    dx = torch.zeros_like(values)
    dx.index_add_(0, source, (weight * keep).unsqueeze(2) * grad[target])
    return (
        dx.flatten(1),
        torch.zeros_like(score_src).index_add_(0, source, dscore),
        weights.row_sums(dscore, target, score_dst),
    )
