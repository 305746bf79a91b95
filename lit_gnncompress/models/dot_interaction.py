"""Dot products of vectors with each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DotInteraction(nn.Module):
    """The dot product of each pair of vectors, as DLRM has it: the lower triangle, without squares.

    Args:
        num_vectors: How many vectors there are, ``K``.
    """

    def __init__(self, num_vectors: int) -> None:
        super().__init__()
        self.num_vectors = num_vectors
        # Places in the flattened square: one index to gather by, and one to scatter backwards.
        row, column = torch.tril_indices(num_vectors, num_vectors, offset=-1)
        self.register_buffer("_places", row * num_vectors + column, persistent=False)

    @property
    def num_products(self) -> int:
        """How many products there are, ``K * (K - 1) / 2``."""
        return self.num_vectors * (self.num_vectors - 1) // 2

    def forward(self, vectors: Tensor) -> Tensor:
        """Multiply.

        Args:
            vectors: ``(B, K, D)``.

        Returns:
            ``(B, K * (K - 1) / 2)``: of vectors 1 and 0, 2 and 0, 2 and 1, 3 and 0, …
        """
        square = vectors @ vectors.transpose(1, 2)
        return square.flatten(1).index_select(1, self._places)  # type: ignore[arg-type]
