"""Plain torch: the coefficients of all edges, which the attention operations never hold."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-16
"""What PyG's softmax adds to its denominator."""

_LOW = 0xFFFFFFFF


def targets(rowptr: Tensor) -> Tensor:
    """Destination of each edge: int64, shape ``(E,)``."""
    rows = torch.arange(rowptr.numel() - 1, device=rowptr.device)
    return rows.repeat_interleave(rowptr.diff())


def row_sums(values: Tensor, target: Tensor, like: Tensor) -> Tensor:
    """Sums over the edges of each destination, in the shape of ``like``."""
    return torch.zeros_like(like).index_add_(0, target, values)


def softmax(
    score_src: Tensor, score_dst: Tensor, target: Tensor, col: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients ``(E, H)``, and by destination their highest score and sum ``(M, H)``."""
    score = score_src[col.long()] + score_dst[target]
    score = torch.nn.functional.leaky_relu(score, negative_slope)
    index = target.unsqueeze(1).expand_as(score)
    highest = torch.zeros_like(score_dst).scatter_reduce(
        0, index, score, "amax", include_self=False
    )
    exponentials = (score - highest[target]).exp()
    total = row_sums(exponentials, target, score_dst)
    return exponentials / (total + EPSILON)[target], highest, total


def rounded(
    alpha: Tensor, target: Tensor, alpha_range: Tensor, renormalize: bool, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Coefficients by their codes, and what each was divided by: shape ``(E, H)`` both.

    Where all coefficients of a destination round to zero, the divisor is infinite: the result does
    not depend on them.
    """
    spread = alpha_range.expand(like.size(0), 3)[target]
    lo, scale, levels = spread.unsqueeze(2).unbind(1)
    codes = ((alpha - lo) / torch.where(scale > 0, scale, 1)).round()
    codes = torch.minimum(torch.where(scale > 0, codes, 0).clamp(min=0), levels)
    divisor = torch.ones_like(alpha)
    out = codes * scale + lo
    if renormalize:
        total = row_sums(out, target, like)[target]
        alike = 1 / row_sums(torch.ones_like(out), target, like)[target]
        out = torch.where(total > 0, out / torch.where(total > 0, total, 1), alike)
        divisor = torch.where(total > 0, total, torch.inf)
    untouched = levels < 0
    return torch.where(untouched, alpha, out), torch.where(untouched, 1, divisor)


def kept(like: Tensor, perm: Tensor | None, dropout_p: float, seed: int) -> Tensor:
    """What dropout multiplies the coefficients ``like`` ``(E, H)`` with."""
    edges, heads = like.shape
    edge = torch.arange(edges, device=like.device) if perm is None else perm.long()
    place = edge.unsqueeze(1) * heads + torch.arange(heads, device=like.device)
    key = mix(torch.tensor(seed & _LOW, device=like.device))
    key = mix(mix(key ^ seed >> 32) ^ place >> 32)
    number = mix(place & _LOW ^ key) >> 8
    factor = 1 / (1 - dropout_p) if dropout_p < 1 else 0.0
    return torch.where(number < math.ceil(dropout_p * 2**24), 0.0, factor).to(like.dtype)


def mix(h: Tensor) -> Tensor:
    """The hash's step, 32-bit arithmetic in int64: what overflows is above the bits kept."""
    h = h ^ h >> 16
    h = h * 0x7FEB352D & _LOW
    h = h ^ h >> 15
    h = h * 0x846CA68B & _LOW
    return h ^ h >> 16
