"""Attention over a graph: softmax of every destination's scores, and the sum that it weighs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_gnncompress.kernels.attention_aggregate_backward import attention_aggregate_backward
from lit_gnncompress.kernels.attention_checks import check_alpha_range, check_scores
from lit_gnncompress.kernels.library import define

if TYPE_CHECKING:
    from lit_gnncompress.kernels.adjacency import Adjacency


def attention_aggregate(
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    adjacency: Adjacency,
    *,
    negative_slope: float = 0.2,
    alpha_range: Tensor | None = None,
    renormalize: bool = True,
    dropout_p: float = 0.0,
    seed: int = 0,
) -> Tensor:
    r"""Sums the neighbours of every destination, weighed by attention as GAT does.

    .. math:: out_i = \sum_j \alpha_{ij} x_j, \quad \alpha_{i \cdot} = \mathrm{softmax}_j
        (\mathrm{LeakyReLU}(s^{src}_j + s^{dst}_i))

    for each of H heads, which own C columns each. Neither the coefficients nor the messages of all
    edges ever lie in memory, in the backward pass neither: it works the coefficients out again.

    With ``alpha_range`` coefficients are rounded to codes and back before they weigh; their
    gradient passes straight through the rounding, and is seen by the renormalisation.

    Dropout drops a coefficient where :math:`u < p` and divides the others by :math:`1 - p`. The
    uniform :math:`u` is a hash of seed and place, the same on every device. With ``e`` the edge in
    the caller's order, :math:`i = e \cdot H + head`, 32-bit arithmetic that wraps, and ``low`` and
    ``high`` the two halves of a 64-bit integer::

        mix(h): h ^= h >> 16; h *= 0x7feb352d; h ^= h >> 15; h *= 0x846ca68b; h ^= h >> 16
        key = mix(mix(mix(low(seed)) ^ high(seed)) ^ high(i))
        u = (mix(low(i) ^ key) >> 8) / 2 ** 24

    Args:
        x: Values, float32, shape ``(N, H * C)``.
        score_src: Share of the sources in a score, float32, shape ``(N, H)``.
        score_dst: Share of the destinations, float32, shape ``(M, H)``.
        adjacency: The edges, from N sources to M destinations.
        negative_slope: Slope of the leaky ReLU below zero.
        alpha_range: float32, shape ``(1, 3)`` or ``(M, 3)``: value of code 0, distance of two
            codes, and highest code of the coefficients of all destinations or of each. Those of a
            destination whose highest code is negative stay as they are.
        renormalize: Whether rounded coefficients of a destination are divided by their sum; if all
            are zero they become alike.
        dropout_p: Probability to drop a coefficient.
        seed: What dropout draws from, 0 or more.

    Returns:
        float32, shape ``(M, H * C)``; zero where no edge arrives.

    Raises:
        ValueError: Tensors that do not fit each other or the adjacency in shape, dtype or device, a
            range of negative scale, a probability outside [0, 1], or a negative seed.
    """
    if x.dtype != torch.float32 or x.dim() != 2:
        raise ValueError(
            f"x must be a float32 matrix (N, H * C), got {x.dtype} of shape {tuple(x.shape)}."
        )
    check_scores(score_src, score_dst, adjacency, x)
    if x.size(1) % score_src.size(1):
        raise ValueError(
            f"x has {x.size(1)} columns, which {score_src.size(1)} heads cannot share alike."
        )
    check_alpha_range(alpha_range, adjacency.num_targets, x)
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p={dropout_p} is no probability: give 0 to 1.")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} must lie in [0, 2**63).")
    rowptr_t = col_t = perm_t = None
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, score_src, score_dst)):
        back = adjacency.transposed
        rowptr_t, col_t, perm_t = back.rowptr, back.col, back.perm
    return _attention_aggregate(
        x, score_src, score_dst, adjacency.rowptr, adjacency.col, negative_slope, alpha_range,
        renormalize, adjacency.perm, dropout_p, seed, rowptr_t, col_t, perm_t,
    )[0]  # fmt: skip


def _fake(x: Tensor, score_src: Tensor, score_dst: Tensor, *_: Any) -> tuple[Tensor, ...]:
    out = x.new_empty(score_dst.size(0), x.size(1))
    return out, torch.empty_like(score_dst), torch.empty_like(score_dst)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, row_max, row_sum = output
    x, score_src, score_dst, rowptr, col, slope, alpha_range, renormalize, perm, p, seed, *back = (
        inputs
    )
    ctx.mark_non_differentiable(row_max, row_sum)
    ctx.save_for_backward(
        x, score_src, score_dst, rowptr, col, alpha_range, perm, *back, row_max, row_sum
    )
    ctx.settings = slope, renormalize, p, seed


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    x, score_src, score_dst, rowptr, col, alpha_range, perm, *rest = ctx.saved_tensors
    slope, renormalize, p, seed = ctx.settings
    grads = attention_aggregate_backward(
        grad, x, score_src, score_dst, rowptr, col, slope, alpha_range, renormalize, perm, p, seed,
        *rest,
    )  # fmt: skip
    return (*grads, *[None] * 11)


_attention_aggregate = define(
    "attention_aggregate(Tensor x, Tensor score_src, Tensor score_dst, Tensor rowptr, Tensor col, "
    "float negative_slope, Tensor? alpha_range, bool renormalize, Tensor? perm, float dropout_p, "
    "int seed, Tensor? rowptr_t, Tensor? col_t, Tensor? perm_t) "
    "-> (Tensor out, Tensor row_max, Tensor row_sum)",
    _fake,
    _backward,
    _setup_context,
)
