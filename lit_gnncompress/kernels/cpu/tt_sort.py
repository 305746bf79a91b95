"""Indices sorted by the digits of the second half of the cores."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.reference.tt_lookup import check_indices

_KEYS_A_ROW = 4
"""More keys than that, and sorting by half their bits at a time is quicker."""


def sort_indices(indices: Tensor, capacity: int, behind: int) -> tuple[Tensor, Tensor, Tensor]:
    """``perm``, ``left`` and ``right`` as ``tt_lookup`` returns them.

    Args:
        indices: int64 or int32, any shape.
        capacity: Number of rows of the table.
        behind: Rows of the second half of the cores: ``right`` is below it.

    Raises:
        IndexError: An index that is no row.
    """
    flat = indices.reshape(-1)
    rows = flat.numel()
    left, right = (torch.empty(rows, dtype=torch.int32) for _ in range(2))
    bits = (behind - 1).bit_length()
    if behind > _KEYS_A_ROW * rows + 256:
        bits = -(-bits // 2)
    counts = torch.zeros(2**bits + 1, dtype=torch.int32)
    if not _split(flat.numpy(), capacity, behind, left.numpy(), right.numpy()):
        check_indices(indices, capacity)
    perm, sorted_left, sorted_right = (torch.empty_like(left) for _ in range(3))
    keys = left.numpy(), right.numpy()
    found = perm.numpy(), sorted_left.numpy(), sorted_right.numpy()
    if behind <= 2**bits:
        _sort_by_bits(*keys, None, 0, counts.numpy(), *found)
        return perm, sorted_left, sorted_right
    order, half_left, half_right = (torch.empty_like(left).numpy() for _ in range(3))
    _sort_by_bits(*keys, None, 0, counts.numpy(), order, half_left, half_right)
    _sort_by_bits(half_left, half_right, order, bits, counts.zero_().numpy(), *found)
    return perm, sorted_left, sorted_right


@njit(cache=True, nogil=True)
def _split(indices, capacity, behind, left, right):
    """Both halves of the digits; whether all indices are rows."""
    wrong = 0
    for i in range(len(indices)):
        index = indices[i]
        wrong += index < 0 or index >= capacity
        digits = index // behind
        left[i] = digits
        right[i] = index - digits * behind
    return wrong == 0


@njit(cache=True, nogil=True)
def _sort_by_bits(left, right, before, shift, counts, perm, sorted_left, sorted_right):
    """A counting sort by some bits of ``right``; ``before`` is the order up to now."""
    mask = len(counts) - 2
    for i in range(len(right)):
        counts[((right[i] >> shift) & mask) + 1] += 1
    for key in range(1, len(counts)):
        counts[key] += counts[key - 1]
    for i in range(len(right)):
        key = (right[i] >> shift) & mask
        slot = counts[key]
        counts[key] = slot + 1
        perm[slot] = i if before is None else before[i]
        sorted_left[slot] = left[i]
        sorted_right[slot] = right[i]
