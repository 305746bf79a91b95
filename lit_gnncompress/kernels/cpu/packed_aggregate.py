"""Packed rows reduced along edges, decoded in registers."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.cpu.reduce_rows import reduce_rows


def packed_aggregate(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_aggregate`."""
    return reduce_rows(packed, lo, scale, bits, width, rowptr, col, perm, weight, reduce)
