"""Plain torch: the gradient of a maximum over edges."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.reference.edges import by_column, by_head, shares_of_max


def max_backward(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    out: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.aggregate`."""
    heads = 1 if weight is None or weight.dim() == 1 else weight.size(1)
    grad_x = torch.zeros_like(x)
    grad_weight = x.new_empty(col.size(0), heads)
    shares = shares_of_max(lambda sources: x[sources], rowptr, col, perm, weight, out, grad)
    for sources, edges, rows, share in shares:
        grad_x.index_add_(0, sources, share * by_column(weight, edges, x.size(1)))
        grad_weight[edges] = by_head(share * rows, heads)
    return grad_x, grad_weight
