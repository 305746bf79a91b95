"""Attention over a graph, of values that are packed rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from lit_gnncompress.kernels.attention_checks import check_alpha_range, check_scores
from lit_gnncompress.kernels.layout import check_packed, check_ranges, check_scale
from lit_gnncompress.kernels.library import define

if TYPE_CHECKING:
    from lit_gnncompress.kernels.adjacency import Adjacency


def packed_attention_aggregate(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    score_src: Tensor,
    score_dst: Tensor,
    adjacency: Adjacency,
    *,
    negative_slope: float = 0.2,
    alpha_range: Tensor | None = None,
    renormalize: bool = True,
) -> Tensor:
    """``attention_aggregate`` of values ``lo + scale * code``, which are unpacked in registers.

    It is for inference: its gradient is refused.

    Args:
        packed: uint8, shape ``(N, row_bytes(H * C, bits))``.
        lo: Value of code 0, float32, shape ``(1,)`` or ``(N,)``.
        scale: Distance of two codes, float32, shape ``(1,)`` or ``(N,)``.
        bits: Bits of a code.
        width: Codes of a row, ``H * C``.
        score_src: Share of the sources in a score, float32, shape ``(N, H)``.
        score_dst: Share of the destinations, float32, shape ``(M, H)``.
        adjacency: The edges, from N sources to M destinations.
        negative_slope: Slope of the leaky ReLU below zero.
        alpha_range: Codes of the coefficients, see ``attention_aggregate``.
        renormalize: Whether rounded coefficients of a destination are divided by their sum.

    Returns:
        float32, shape ``(M, H * C)``; zero where no edge arrives.

    Raises:
        ValueError: Bits outside 1 to 8, a scale that is negative or not finite, or tensors that do
            not fit each other or the adjacency in shape, dtype or device.
        RuntimeError: In the backward pass.
    """
    check_packed(packed, bits, width)
    check_ranges(lo, scale, packed.size(0), packed)
    check_scale(scale)
    check_scores(score_src, score_dst, adjacency, packed)
    if width % score_src.size(1):
        raise ValueError(f"width={width} columns are not shared alike by {score_src.size(1)} heads")
    check_alpha_range(alpha_range, adjacency.num_targets, packed)
    return _packed_attention_aggregate(
        packed, lo, scale, bits, width, score_src, score_dst, adjacency.rowptr, adjacency.col,
        negative_slope, alpha_range, renormalize,
    )  # fmt: skip


def _fake(packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, *others: Any) -> Tensor:
    score_dst: Tensor = others[1]
    return packed.new_empty(score_dst.size(0), width, dtype=torch.float32)


def _refuse(ctx: Any, grad: Tensor) -> NoReturn:
    raise RuntimeError(
        "packed_attention_aggregate has no gradient: it is for inference. Train with "
        "attention_aggregate on float32 values, or compute this under torch.no_grad()."
    )


_packed_attention_aggregate = define(
    "packed_attention_aggregate(Tensor packed, Tensor lo, Tensor scale, int bits, int width, "
    "Tensor score_src, Tensor score_dst, Tensor rowptr, Tensor col, float negative_slope, "
    "Tensor? alpha_range, bool renormalize) -> Tensor",
    _fake,
    _refuse,
)
