"""How well the first ``k`` recommendations are those that are wanted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class RankingMetric(Metric, ABC):
    """A mean over users, of which only sum and number are kept.

    torchmetrics' retrieval metrics keep the scores of all users and items until the end of an
    epoch, and then loop over users: these give the same numbers of the first ``k`` alone. Items
    with scores below 0 count as well, where torchmetrics' recall passes over them.

    Args:
        k: How many recommendations count.
        **kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``k`` is below 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    num_users: Tensor

    def __init__(self, k: int = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if k < 1:
            raise ValueError(f"k={k} must be at least 1")
        self.k = k
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_users", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, hits: Tensor, num_wanted: Tensor) -> None:
        """Take in users; those who want nothing are skipped.

        Args:
            hits: Whether each recommendation is wanted, best first, bool of shape ``(B, k)``.
            num_wanted: How many items each user wants, int64 of shape ``(B,)``.

        Raises:
            ValueError: If there are not ``k`` recommendations.
        """
        if hits.dim() != 2 or hits.size(1) != self.k:
            raise ValueError(f"hits must have shape (B, {self.k}), got {tuple(hits.shape)}")
        some = num_wanted > 0
        self.total += self._of_users(hits[some], num_wanted[some]).sum(dtype=torch.float64)
        self.num_users += some.sum()

    def compute(self) -> Tensor:
        """The mean over users, float32; 0 without any."""
        return (self.total / self.num_users.clamp(min=1)).float()

    @abstractmethod
    def _of_users(self, hits: Tensor, num_wanted: Tensor) -> Tensor:
        """The metric of each user, all of whom want something."""


class RecallAtK(RankingMetric):
    """Share of the wanted items that are among the first ``k``."""

    def _of_users(self, hits: Tensor, num_wanted: Tensor) -> Tensor:
        return hits.sum(dim=1) / num_wanted


class NDCGAtK(RankingMetric):
    """Normalised discounted cumulative gain of the first ``k``: a hit at place ``r``, counted from
    1, is worth ``1 / log2(r + 1)``, and the best that could be is 1.
    """  # noqa: D205

    def _of_users(self, hits: Tensor, num_wanted: Tensor) -> Tensor:
        gain = 1 / torch.arange(2, self.k + 2, dtype=torch.float64, device=hits.device).log2()
        best = gain.cumsum(0)[num_wanted.clamp(max=self.k) - 1]
        return hits.double() @ gain / best
