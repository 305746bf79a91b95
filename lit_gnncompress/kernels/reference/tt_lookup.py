"""Plain torch: ``tt_lookup``, row by row."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def tt_lookup(
    indices: Tensor, cores: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_lookup`.

    Args:
        indices: Any shape, for ``B`` rows.
        cores: The tensor train.
        keep: Whether backward will need the order of rows.

    Returns:
        The rows; and, of shape ``(B,)``, empty if they are not to be kept, what
        :func:`lit_gnncompress.kernels.tt_lookup_backward.tt_lookup_backward` calls ``perm``,
        ``left`` and ``right``.
    """
    rows = indices.reshape(-1).long()
    capacity = math.prod(core.size(0) for core in cores)
    if rows.device.type == "cpu" and rows.numel():
        check_indices(indices, capacity)
    dtype = torch.float64 if cores[0].dtype == torch.float64 else torch.float32
    digits = digits_of(rows, cores)
    out = torch.ones(rows.size(0), 1, 1, dtype=dtype, device=rows.device)
    with torch.autocast(rows.device.type, enabled=False):
        for core, digit in zip(cores, digits, strict=True):
            out = out @ core.to(dtype)[digit].flatten(2)
            out = out.reshape(rows.size(0), out.size(1) * core.size(2), core.size(3))
    width = math.prod(core.size(2) for core in cores)
    out = out.view(*indices.shape, width).to(cores[0].dtype)
    if not keep:
        left, right, perm = (indices.new_empty(0, dtype=torch.int32) for _ in range(3))
        return out, perm, left, right
    behind = math.prod(core.size(0) for core in cores[len(cores) // 2 :])
    right, perm = (rows % behind).sort(stable=True)
    left = (rows // behind)[perm]
    return out, perm.int(), left.int(), right.int()


def digits_of(rows: Tensor, cores: list[Tensor]) -> list[Tensor]:
    """The digit of each row in each core."""
    digits = []
    for core in cores[::-1]:
        digits.append(rows % core.size(0))
        rows = rows // core.size(0)
    return digits[::-1]


def check_indices(indices: Tensor, capacity: int) -> None:
    """Refuses indices of rows that are not there.

    Raises:
        IndexError: Naming the first and its place.
    """
    low, high = indices.aminmax()
    if int(low) >= 0 and int(high) < capacity:
        return
    place = tuple(((indices < 0) | (indices >= capacity)).nonzero()[0].tolist())
    raise IndexError(
        f"indices[{', '.join(map(str, place))}]={int(indices[place])} is out of range: the cores "
        f"have {capacity} rows, counted from 0."
    )
