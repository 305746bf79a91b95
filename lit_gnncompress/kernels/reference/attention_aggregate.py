"""Plain torch: the meaning of ``attention_aggregate``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference import attention_weights as weights


def attention_aggregate(
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    rowptr: Tensor,
    col: Tensor,
    negative_slope: float,
    alpha_range: Tensor | None,
    renormalize: bool,
    perm: Tensor | None = None,
    dropout_p: float = 0.0,
    seed: int = 0,
    *_: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.attention_aggregate`."""
    target = weights.targets(rowptr)
    alpha, highest, total = weights.softmax(score_src, score_dst, target, col, negative_slope)
    if alpha_range is not None:
        alpha, _divisor = weights.rounded(alpha, target, alpha_range, renormalize, score_dst)
    if dropout_p > 0:
        alpha = alpha * weights.kept(alpha, perm, dropout_p, seed)
    by_head = x.view(x.size(0), alpha.size(1), x.size(1) // alpha.size(1))
    out = by_head.new_zeros(score_dst.size(0), *by_head.shape[1:])
    out.index_add_(0, target, alpha.unsqueeze(2) * by_head[col.long()])
    return out.flatten(1), highest, total
