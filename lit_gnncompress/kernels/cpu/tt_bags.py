"""Which bag each row of a tensor train adds to, and with what weight."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor


class Bags(NamedTuple):
    """Bags of indices as kernels read them.

    Attributes:
        num_bags: How many there are.
        first: First index of each bag, and their number, int64, shape ``(num_bags + 1,)``; ``None``
            where every index is a bag.
        of_index: Bag of each index, int32; ``None`` where every index is a bag.
        weights: Of each index, float32; ``None`` if all are 1.
    """

    num_bags: int
    first: Tensor | None = None
    of_index: Tensor | None = None
    weights: Tensor | None = None

    @classmethod
    def of(cls, first: Tensor, num_indices: int, weights: Tensor | None) -> Bags:
        """Bags whose first indices are known; see above."""
        num_bags, sizes = first.numel() - 1, first.diff()
        if weights is not None:
            weights = weights.detach().float().contiguous()
        if num_bags == num_indices and bool((sizes == 1).all()):
            return cls(num_bags, weights=weights)
        bags = torch.arange(num_bags, dtype=torch.int32)
        return cls(num_bags, first, bags.repeat_interleave(sizes), weights)

    @property
    def arrays(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What kernels take: ``of_index`` and ``weights``."""
        return (
            None if self.of_index is None else self.of_index.numpy(),
            None if self.weights is None else self.weights.numpy(),
        )


class Slots(NamedTuple):
    """Rows in the order in which kernels visit them, a chunk after the other.

    Attributes:
        bounds: First slot of each chunk and, last, the number of slots.
        perm: Index of each slot, int32.
        place: Row of the table of the first half, int32.
        right: Digits of the second half, int32; those of a chunk never fall.
    """

    bounds: np.ndarray
    perm: Tensor
    place: Tensor
    right: Tensor

    def by_bag(self, bags: Bags) -> Slots:
        """The same with chunks that have whole bags each, so that no two add to the same.

        The order of the rows of a bag stays: sums are the same bits whatever the chunks.
        """
        if bags.first is None or len(self.bounds) == 2:
            return self
        first = bags.first.numpy()
        bounds = np.unique(first[np.searchsorted(first, self.bounds)])
        chunk = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        found = [torch.empty_like(order) for order in self[1:]]
        _share_out(
            bounds[:-1].copy(), chunk, *(o.numpy() for o in self[1:]), *(f.numpy() for f in found)
        )
        return Slots(bounds, *found)


@njit(cache=True, nogil=True)
def _share_out(free, chunk, perm, place, right, perm_out, place_out, right_out):
    for slot in range(len(perm)):
        of_slot = chunk[perm[slot]]
        at = free[of_slot]
        free[of_slot] = at + 1
        perm_out[at] = perm[slot]
        place_out[at] = place[slot]
        right_out[at] = right[slot]
