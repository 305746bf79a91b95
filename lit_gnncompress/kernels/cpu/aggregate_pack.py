"""``aggregate_pack`` in numba: a row stays in the cache until it is packed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.activate_pack import ACTIVATIONS, empty_results
from lit_gnncompress.kernels.cpu.finished_rows import finish_and_pack
from lit_gnncompress.kernels.cpu.reduce_rows import (
    array_or_none,
    bytes_of_groups,
    groups_at_a_time,
    sum_of_rows,
)
from lit_gnncompress.kernels.cpu.threads import over_rows
from lit_gnncompress.kernels.cpu.vector import FLOAT, LANES

_EDGES_OF_ROW = 8
"""Edges that take as long as to pack a row."""


def aggregate_pack(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    bits: int,
    lo: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.aggregate_pack`."""
    rows, width = rowptr.size(0) - 1, x.size(1)
    packed, row_lo, row_scale, finite = empty_results(x, rows, bits, lo)
    finite.fill_(True)
    over_rows(
        _compiled(groups_at_a_time(width)),
        rowptr.numpy(),
        LANES * -(-width // LANES),
        array_or_none(x),
        x.size(1) * x.element_size(),
        width,
        rowptr.numpy(),
        col.numpy(),
        None if weight is None else array_or_none(perm),
        array_or_none(weight),
        reduce == "mean",
        array_or_none(bias),
        array_or_none(residual),
        ACTIVATIONS.index(activation),
        bits,
        array_or_none(lo),
        array_or_none(scale),
        packed.data_ptr(),
        packed.size(1),
        row_lo.numpy(),
        row_scale.numpy(),
        finite.view(1).numpy(),
        edges_of_row=_EDGES_OF_ROW,
    )
    return packed, row_lo, row_scale, finite


def _loop(groups: int) -> Callable[..., None]:
    row_bytes = bytes_of_groups(FLOAT, groups)

    def kernel(
        first: int,
        last: int,
        data: Any,
        stride: int,
        width: int,
        rowptr: Any,
        col: Any,
        perm: Any,
        weight: Any,
        mean: bool,
        bias: Any,
        residual: Any,
        activation: int,
        bits: int,
        lo: Any,
        scale: Any,
        packed: int,
        size: int,
        row_lo: Any,
        row_scale: Any,
        finite: Any,
    ) -> None:
        zero, one = np.float32(0), np.float32(1)
        # What counts references stays out of the loop: threads would wait for each other's.
        sums = np.empty(-(-width // LANES) * LANES, np.float32)
        numbers, address = sums.view(np.int32), sums.ctypes.data
        ends = np.empty(2, np.float32)
        numbers_of_ends = ends.view(np.int32)
        for row in range(first, last):
            sum_of_rows(
                row, row + 1, data, stride, width, zero, one, None, None, rowptr, col, perm, weight,
                mean, sums, row, FLOAT, groups, row_bytes,
            )  # fmt: skip
            if not finish_and_pack(
                row, sums, numbers, address, width, bias, residual, activation, bits, lo, scale,
                ends, numbers_of_ends, packed, size, row_lo, row_scale,
            ):  # fmt: skip
                finite[0] = False

    return kernel


@cache
def _compiled(groups: int) -> Callable[..., None]:
    return njit(cache=True, nogil=True, error_model="numpy")(_loop(groups))
