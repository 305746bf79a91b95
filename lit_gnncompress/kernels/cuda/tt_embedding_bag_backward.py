"""Triton: ``tt_embedding_bag_backward``."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.cuda.tt_lookup import factors_of, halves_of, parts_of
from lit_gnncompress.kernels.cuda.tt_lookup_backward import differentiate
from lit_gnncompress.kernels.cuda.tt_product import dot_products
from lit_gnncompress.kernels.reference.tt_embedding_bag_backward import (
    tt_embedding_bag_backward as reference,
)


def tt_embedding_bag_backward(
    grad: Tensor,
    offsets: Tensor,
    weights: Tensor | None,
    cores: list[Tensor],
    perm: Tensor,
    left: Tensor,
    right: Tensor,
    to_weights: bool,
) -> tuple[list[Tensor], Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_embedding_bag_backward.tt_embedding_bag_backward`."""
    if cores[0].dtype == torch.float64:
        return reference(grad, offsets, weights, cores, perm, left, right, to_weights)
    bags = torch.arange(offsets.numel() - 1, dtype=torch.int32, device=grad.device)
    slots = perm.size(0)
    of_index = bags.repeat_interleave(offsets.diff(), output_size=slots)
    place, by_slot = of_index[perm.long()], None
    if weights is not None:
        by_slot = weights.float()[perm.long()]
    of_cores = differentiate(grad, cores, left, right, place, by_slot)
    if not to_weights:
        return of_cores, grad.new_empty(0)
    found = torch.empty(slots, device=grad.device, dtype=torch.float32)
    if slots:
        with torch.cuda.device_of(grad), torch.autocast("cuda", enabled=False):
            halves = halves_of(cores, slots)
            rows = grad.contiguous().view(grad.size(0), halves[0].height, -1)
            for part in parts_of(halves, slots):
                tables = factors_of(halves, left[part], right[part])
                dot_products(*tables, rows, place[part], perm[part], found)
    return of_cores, found.to(grad.dtype)
