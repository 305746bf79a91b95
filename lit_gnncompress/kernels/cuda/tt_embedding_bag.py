"""Triton: ``tt_embedding_bag``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_gnncompress.kernels.cuda.tt_half import sort_keys
from lit_gnncompress.kernels.cuda.tt_lookup import factors_of, halves_of, parts_of, split
from lit_gnncompress.kernels.cuda.tt_product import Factor, sum_segments
from lit_gnncompress.kernels.reference.tt_embedding_bag import tt_embedding_bag as reference


def tt_embedding_bag(
    indices: Tensor, offsets: Tensor, weights: Tensor | None, cores: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_embedding_bag`: a table of pairs, then a sum a bag.

    A bag is summed by a program, large ones by several; the host waits for nothing.
    """
    dtype = cores[0].dtype
    if dtype == torch.float64:
        return reference(indices, offsets, weights, cores, keep)
    slots, bags = indices.numel(), offsets.numel() - 1
    width = math.prod(core.size(2) for core in cores)
    perm, left, right = (indices.new_empty(slots, dtype=torch.int32) for _ in range(3))
    if slots == 0 or bags == 0:
        return cores[0].new_zeros(bags, width), perm, left, right
    weights = None if weights is None else weights.float().contiguous()
    out: Tensor | None = None
    with torch.cuda.device_of(perm), torch.autocast("cuda", enabled=False):
        halves = halves_of(cores, slots)
        split(indices, halves, left, right)
        for part in parts_of(halves, slots):
            a, b, of_a, of_b = factors_of(halves, left[part], right[part])
            sums = sum_segments(
                Factor(a, of_a, True),
                Factor(b, of_b),
                offsets.clamp(part.start, part.stop) - part.start,
                part.stop - part.start,
                None if weights is None else weights[part],
            )
            out = sums if out is None else out.add_(sums)
        if keep:
            right, perm = sort_keys(right, halves[1].count)
            left = left[perm.long()]
    assert out is not None
    if not keep:
        perm, left, right = (indices.new_empty(0, dtype=torch.int32) for _ in range(3))
    return out.view(bags, width).to(dtype), perm, left, right
