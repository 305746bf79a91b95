"""Checks that the attention operations share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lit_gnncompress.kernels.adjacency import Adjacency


def check_scores(
    score_src: Tensor, score_dst: Tensor, adjacency: Adjacency, values: Tensor | None = None
) -> None:
    """Refuses scores that fit neither each other nor the edges nor the rows of ``values``.

    Raises:
        ValueError: With the argument and what it should be.
    """
    heads = score_src.size(1) if score_src.dim() == 2 else -1
    sizes = (
        ("score_src", score_src, adjacency.num_sources),
        ("score_dst", score_dst, adjacency.num_targets),
    )
    for name, score, rows in sizes:
        if score.dtype != torch.float32 or tuple(score.shape) != (rows, heads) or heads < 1:
            raise ValueError(
                f"{name} must be float32 of shape ({rows}, H), one row for each node of the "
                f"adjacency and as many heads as score_src, got {score.dtype} of shape "
                f"{tuple(score.shape)}."
            )
        if score.device != adjacency.rowptr.device:
            raise ValueError(
                f"{name} is on {score.device}, the adjacency on {adjacency.rowptr.device}: move "
                "one of them."
            )
    if values is None:
        return
    if values.size(0) != adjacency.num_sources:
        raise ValueError(
            f"there are {values.size(0)} rows of values, but the adjacency has "
            f"{adjacency.num_sources} sources."
        )
    if values.device != score_src.device:
        raise ValueError(
            f"the values are on {values.device}, the scores on {score_src.device}: move one."
        )


def check_alpha_range(alpha_range: Tensor | None, num_targets: int, like: Tensor) -> None:
    """Refuses ranges of coefficients that do not fit the destinations.

    Raises:
        ValueError: Not float32, not of shape ``(1, 3)`` or ``(M, 3)``, on another device, or a
            scale that is negative or not finite where there are codes.
    """
    if alpha_range is None:
        return
    if (
        alpha_range.dtype != torch.float32
        or alpha_range.dim() != 2
        or alpha_range.size(1) != 3
        or alpha_range.size(0) not in (1, num_targets)
    ):
        raise ValueError(
            f"alpha_range must be float32 of shape (1, 3) or ({num_targets}, 3): lo, scale and "
            f"highest code; got {alpha_range.dtype} of shape {tuple(alpha_range.shape)}."
        )
    if alpha_range.device != like.device:
        raise ValueError(
            f"alpha_range is on {alpha_range.device}, the values on {like.device}: move one."
        )
    if torch.compiler.is_compiling():
        return
    if len(alpha_range) == 1:  # of a site without buckets: looked at in a tenth of the time
        [[_, step, highest]] = alpha_range.tolist()
        if highest < 0 or 0 <= step < float("inf"):
            return
    scale, levels = alpha_range[:, 1], alpha_range[:, 2]
    wrong = (levels >= 0) & ~((scale >= 0) & (scale < float("inf")))
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"alpha_range[{place}, 1]={float(scale[place])}: a range needs max >= min, both "
            "finite, so that its scale is finite and not negative."
        )
