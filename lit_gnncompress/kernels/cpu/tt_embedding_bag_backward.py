"""Numba: ``tt_embedding_bag_backward``."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.cpu.tt_bags import Bags
from lit_gnncompress.kernels.cpu.tt_lookup_backward import differentiate
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
    """See :func:`lit_gnncompress.kernels.tt_embedding_bag_backward`."""
    if cores[0].dtype.itemsize == 8:
        return reference(grad, offsets, weights, cores, perm, left, right, to_weights)
    bags = Bags.of(offsets, perm.numel(), weights)
    of_weights = torch.empty(perm.numel(), dtype=torch.float32) if to_weights else None
    of_cores = differentiate(grad, cores, perm, left, right, bags, of_weights)
    if of_weights is None:
        return of_cores, grad.new_empty(0)
    return of_cores, of_weights.to(grad.dtype)
