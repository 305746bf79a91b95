"""Smallest and largest attention coefficient of every destination."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from lit_gnncompress.kernels.attention_checks import check_scores
from lit_gnncompress.kernels.library import define

if TYPE_CHECKING:
    from lit_gnncompress.kernels.adjacency import Adjacency


def attention_range(
    score_src: Tensor, score_dst: Tensor, adjacency: Adjacency, *, negative_slope: float = 0.2
) -> tuple[Tensor, Tensor]:
    """Extremes of the coefficients that ``attention_aggregate`` weighs with, over all heads.

    They are exactly those that it rounds, so that a range found from them clips none.

    Args:
        score_src: Share of the sources in a score, float32, shape ``(N, H)``.
        score_dst: Share of the destinations, float32, shape ``(M, H)``.
        adjacency: The edges, from N sources to M destinations.
        negative_slope: Slope of the leaky ReLU below zero.

    Returns:
        Smallest and largest coefficient of each destination, float32, shape ``(M,)``; infinity and
        minus infinity where no edge arrives. They have no gradient.

    Raises:
        ValueError: Scores that do not fit each other or the adjacency.
    """
    check_scores(score_src, score_dst, adjacency)
    return _attention_range(
        score_src.detach(), score_dst.detach(), adjacency.rowptr, adjacency.col, negative_slope
    )


def _fake(score_src: Tensor, score_dst: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    rows = score_dst.size(0)
    return score_dst.new_empty(rows), score_dst.new_empty(rows)


_attention_range = define(
    "attention_range(Tensor score_src, Tensor score_dst, Tensor rowptr, Tensor col, "
    "float negative_slope) -> (Tensor lo, Tensor hi)",
    _fake,
    folders={"CUDA": "reference"},
)
