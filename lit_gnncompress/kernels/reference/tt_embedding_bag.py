"""Plain torch: ``tt_embedding_bag``, from all rows."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.reference.tt_lookup import tt_lookup


def tt_embedding_bag(
    indices: Tensor, offsets: Tensor, weights: Tensor | None, cores: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_embedding_bag`.

    Args:
        indices: Shape ``(B,)``.
        offsets: First index of each bag and, last, ``B``; int64, shape ``(bags + 1,)``.
        weights: Of each index; 1 if ``None``.
        cores: The tensor train.
        keep: Whether backward will need the order of rows.

    Returns:
        The sums, shape ``(bags, prod(q))``, and what ``tt_lookup`` returns beside its rows.
    """
    wide = [core.to(_sums_of(core.dtype)) for core in cores]
    rows, perm, left, right = tt_lookup(indices, wide, keep)
    if weights is not None:
        rows = rows * weights.to(rows.dtype).unsqueeze(1)
    out = rows.new_zeros(offsets.numel() - 1, rows.size(1))
    out.index_add_(0, bags_of(offsets), rows)
    return out.to(cores[0].dtype), perm, left, right


def bags_of(offsets: Tensor) -> Tensor:
    """The bag of each index, int64."""
    bags = torch.arange(offsets.numel() - 1, device=offsets.device)
    return bags.repeat_interleave(offsets.diff())


def _sums_of(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
