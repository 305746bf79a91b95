"""Gradients of ``attention_aggregate``, from coefficients that are worked out again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_gnncompress.kernels.adjacency import transpose
from lit_gnncompress.kernels.library import define


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
    rowptr_t: Tensor | None,
    col_t: Tensor | None,
    perm_t: Tensor | None,
    row_max: Tensor,
    row_sum: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The gradients of ``attention_aggregate`` to values and scores.

    With :math:`d_{ij} = \langle g_i, x_j \rangle` by head they are :math:`dx_j = \sum_i
    \alpha_{ij} g_i` and the sums over destinations and sources of :math:`\alpha_{ij} (d_{ij} -
    \langle g_i, out_i \rangle)` times the slope of the leaky ReLU.

    Args:
        grad: Gradient of the result, shape ``(M, H * C)``.
        x: As in the forward pass, and so the arguments up to ``perm_t``.
        score_src: See ``x``.
        score_dst: See ``x``.
        rowptr: See ``x``.
        col: See ``x``.
        negative_slope: See ``x``.
        alpha_range: See ``x``.
        renormalize: See ``x``.
        perm: See ``x``.
        dropout_p: See ``x``.
        seed: See ``x``.
        rowptr_t: The edges by source instead of by destination; sorted here if ``None``.
        col_t: Destination of each of these.
        perm_t: Their edge in the caller's order.
        row_max: The forward pass's highest score of each destination and head, shape ``(M, H)``.
        row_sum: Its sum of exponentials.

    Returns:
        Gradients to ``x``, ``score_src`` and ``score_dst``.
    """
    if rowptr_t is None or col_t is None:
        rowptr_t, col_t, perm_t = transpose(rowptr, col, perm, x.size(0))
    return _attention_aggregate_backward(
        grad, x, score_src, score_dst, rowptr, col, negative_slope, alpha_range, renormalize, perm,
        dropout_p, seed, rowptr_t, col_t, perm_t, row_max, row_sum,
    )  # fmt: skip


def _fake(
    grad: Tensor, x: Tensor, score_src: Tensor, score_dst: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(score_src), torch.empty_like(score_dst)


_attention_aggregate_backward = define(
    "attention_aggregate_backward(Tensor grad, Tensor x, Tensor score_src, Tensor score_dst, "
    "Tensor rowptr, Tensor col, float negative_slope, Tensor? alpha_range, bool renormalize, "
    "Tensor? perm, float dropout_p, int seed, Tensor rowptr_t, Tensor col_t, Tensor? perm_t, "
    "Tensor row_max, Tensor row_sum) -> (Tensor, Tensor, Tensor)",
    _fake,
    folders={"CUDA": "reference"},
)
