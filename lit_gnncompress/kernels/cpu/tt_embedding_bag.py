"""Numba: ``tt_embedding_bag``, the kernel of ``tt_lookup`` with sums in place of rows."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.cpu.tt_bags import Bags
from lit_gnncompress.kernels.cpu.tt_lookup import look_up
from lit_gnncompress.kernels.reference.tt_embedding_bag import tt_embedding_bag as reference


def tt_embedding_bag(
    indices: Tensor, offsets: Tensor, weights: Tensor | None, cores: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_embedding_bag`."""
    if cores[0].dtype.itemsize == 8:
        return reference(indices, offsets, weights, cores, keep)
    return look_up(indices, cores, keep, Bags.of(offsets, indices.numel(), weights))
