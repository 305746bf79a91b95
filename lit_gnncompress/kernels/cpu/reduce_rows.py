"""The loops over edges that aggregations of floats and of packed rows share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.large_pages import empty_rows
from lit_gnncompress.kernels.cpu.threads import over_rows
from lit_gnncompress.kernels.cpu.vector import (
    FLOAT,
    LANES,
    add_row,
    add_row_by_column,
    filled,
    max_row,
    prefetch,
    store_row,
)

_AHEAD = 32
"""Edges between the row that is asked for and the one that is added."""

_GROUPS = 16
"""Groups of columns whose sums are kept in registers: half of those that there are."""

_CHANNELS = (8, 16, 32, 64)
"""Columns of a head for which a loop of its own is compiled."""

_NOTHING = np.float32(-np.inf)


def reduce_rows(
    data: Tensor,
    lo: Tensor | None,
    scale: Tensor | None,
    bits: int,
    width: int,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_aggregate`; rows of floats have no ranges."""
    out = empty_rows(rowptr.size(0) - 1, width)
    if out.numel() == 0:
        return out
    if col.numel() == 0:
        return out.zero_()
    groups = groups_at_a_time(width)
    heads = 1 if weight is None or weight.dim() == 1 else weight.size(1)
    if reduce == "max":
        kernel = _compiled(_max_loop, bits, groups)
    elif heads == 1:
        kernel = _compiled(_sum_loop, bits, groups)
    else:
        channels = width // heads
        kernel = _compiled(_heads_loop, bits, groups, channels if channels in _CHANNELS else 0)
    low, step = 0.0, 1.0
    if lo is not None and scale is not None and lo.size(0) == scale.size(0) == 1:
        low, step = float(lo), float(scale)
        lo = scale = None  # then sums are of codes
    elif lo is not None and scale is not None:
        lo, scale = lo.expand(data.size(0)), scale.expand(data.size(0))
    over_rows(
        kernel,
        rowptr.numpy(),
        LANES * -(-width // LANES),
        array_or_none(data),
        data.size(1) * data.element_size(),
        width,
        np.float32(low),
        np.float32(step),
        array_or_none(lo),
        array_or_none(scale),
        rowptr.numpy(),
        col.numpy(),
        None if weight is None else array_or_none(perm),
        array_or_none(weight),
        heads,
        reduce == "mean",
        array_or_none(out),
    )
    return out


def groups_at_a_time(width: int) -> int:
    """Groups of 16 columns whose sums are kept in registers together."""
    groups = -(-width // LANES)
    return -(-groups // -(-groups // _GROUPS))


def array_or_none(tensor: Tensor | None) -> Any:
    """The numbers of a tensor, one after the other."""
    return None if tensor is None else tensor.detach().contiguous().view(-1).numpy()


@njit(cache=True, nogil=True, inline="always")
def _weight_at(slot: Any, perm: Any, weight: Any, one: Any) -> Any:
    if weight is None:
        return one
    if perm is None:
        return weight[slot]
    return weight[np.uint64(perm[slot])]


@njit(cache=True, nogil=True, inline="always")
def _ask_for_weight(slot: Any, perm: Any, weight: Any, heads: Any) -> None:
    """In the caller's order weights lie anywhere."""
    if weight is not None and perm is not None:
        prefetch(weight, np.int64(perm[slot]) * heads * 4, 4)


@njit(cache=True, nogil=True, inline="always")
def sum_of_rows(
    first: int, last: int, data: Any, stride: int, width: int, low: Any, step: Any, lo: Any,
    scale: Any, rowptr: Any, col: Any, perm: Any, weight: Any, mean: bool, out: Any, origin: int,
    bits: int, groups: int, row_bytes: int,
) -> None:  # fmt: skip
    """Sums or means of targets, to ``out``, which begins at row ``origin``.

    ``groups`` groups of 16 columns, which take ``row_bytes``, are summed at a time. The last three
    are known when it is compiled. The loop is in here: to come in counts references.
    """
    group_bytes = row_bytes // groups
    all_groups = -(-width // LANES)
    final = np.uint64(len(col) - 1)
    ahead = np.uint64(_AHEAD)
    # Not a constant: with one, LLVM would only add, in the unit that makes floats of codes.
    one = np.float32(width > 0)
    for row in range(first, last):
        # Unsigned: numba spends no time on indices that count from the end.
        begin, end = np.uint64(rowptr[row]), np.uint64(rowptr[row + 1])
        for tile in range(0, all_groups, groups):
            # The last groups begin earlier, rather than be fewer.
            group = min(tile, all_groups - groups)
            at = group * group_bytes
            columns = width - LANES * group
            sums = filled(groups, np.float32(0))
            offset = np.float32(0)
            for slot in range(begin, end):
                later = min(slot + ahead, final)
                prefetch(data, np.int64(col[later]) * stride + at, row_bytes)
                _ask_for_weight(later, perm, weight, 1)
                source = np.int64(col[slot])
                factor = _weight_at(slot, perm, weight, one)
                if lo is None:
                    offset += factor
                else:
                    offset += factor * lo[np.uint64(source)]
                    factor *= scale[np.uint64(source)]
                sums = add_row(sums, data, source * stride + at, factor, bits, columns)
            share = np.float32(1)
            if mean and end > begin:
                share = np.float32(1) / np.float32(end - begin)
            if lo is None:
                offset *= low
            place = (row - origin) * width + LANES * group
            store_row(out, place, sums, share * step, offset * share, bits, columns)


def bytes_of_groups(bits: int, groups: int) -> int:
    """Bytes of groups of 16 columns."""
    return (64 if bits == FLOAT else 2 * bits) * groups


def _sum_loop(bits: int, groups: int) -> Callable[..., None]:
    row_bytes = bytes_of_groups(bits, groups)

    def kernel(
        first: int,
        last: int,
        data: Any,
        stride: int,
        width: int,
        low: Any,
        step: Any,
        lo: Any,
        scale: Any,
        rowptr: Any,
        col: Any,
        perm: Any,
        weight: Any,
        heads: int,
        mean: bool,
        out: Any,
    ) -> None:
        sum_of_rows(
            first, last, data, stride, width, low, step, lo, scale, rowptr, col, perm, weight, mean,
            out, 0, bits, groups, row_bytes,
        )  # fmt: skip

    return kernel


def _heads_loop(bits: int, groups: int, channels: int) -> Callable[..., None]:
    """Each head weighs ``channels`` columns, told at run time if 0.

    The weights of an edge are laid out by column.
    """
    row_bytes = bytes_of_groups(bits, groups)
    group_bytes = row_bytes // groups

    def kernel(
        first: int,
        last: int,
        data: Any,
        stride: int,
        width: int,
        low: Any,
        step: Any,
        lo: Any,
        scale: Any,
        rowptr: Any,
        col: Any,
        perm: Any,
        weight: Any,
        heads: int,
        mean: bool,
        out: Any,
    ) -> None:
        all_groups = -(-width // LANES)
        final = np.uint64(len(col) - 1)
        ahead = np.uint64(_AHEAD)
        factors = np.zeros(all_groups * LANES, dtype=np.float32)
        by_head = channels if channels > 0 else width // heads
        for row in range(first, last):
            begin, end = np.uint64(rowptr[row]), np.uint64(rowptr[row + 1])
            for tile in range(0, all_groups, groups):
                group = min(tile, all_groups - groups)
                at = group * group_bytes
                columns = width - LANES * group
                sums = filled(groups, np.float32(0))
                for slot in range(begin, end):
                    later = min(slot + ahead, final)
                    prefetch(data, np.int64(col[later]) * stride + at, row_bytes)
                    _ask_for_weight(later, perm, weight, heads)
                    source = np.int64(col[slot])
                    edge = np.int64(slot if perm is None else perm[slot])
                    for head in range(heads):
                        each = weight[np.uint64(edge * heads + head)]
                        for column in range(by_head):
                            factors[np.uint64(head * by_head + column)] = each
                    if lo is not None:
                        low = lo[np.uint64(source)]
                        step = scale[np.uint64(source)]
                    spot = source * stride + at
                    sums = add_row_by_column(
                        sums, data, spot, factors, LANES * group, step, low, bits, columns
                    )
                share = np.float32(1)
                if mean and end > begin:
                    share = np.float32(1) / np.float32(end - begin)
                place = row * width + LANES * group
                store_row(out, place, sums, share, np.float32(0), FLOAT, columns)

    return kernel


def _max_loop(bits: int, groups: int) -> Callable[..., None]:
    """The largest message; of codes with one range and no weights, the largest code."""
    row_bytes = bytes_of_groups(bits, groups)
    group_bytes = row_bytes // groups

    def kernel(
        first: int,
        last: int,
        data: Any,
        stride: int,
        width: int,
        low: Any,
        step: Any,
        lo: Any,
        scale: Any,
        rowptr: Any,
        col: Any,
        perm: Any,
        weight: Any,
        heads: int,
        mean: bool,
        out: Any,
    ) -> None:
        all_groups = -(-width // LANES)
        final = np.uint64(len(col) - 1)
        ahead = np.uint64(_AHEAD)
        factors = np.zeros(all_groups * LANES, dtype=np.float32)
        channels = width // heads
        zero, one = np.float32(0), np.float32(1)
        for row in range(first, last):
            begin, end = np.uint64(rowptr[row]), np.uint64(rowptr[row + 1])
            for tile in range(0, all_groups, groups):
                group = min(tile, all_groups - groups)
                at = group * group_bytes
                columns = width - LANES * group
                place = row * width + LANES * group
                if begin == end:
                    store_row(out, place, filled(groups, zero), one, zero, FLOAT, columns)
                    continue
                largest = filled(groups, _NOTHING)
                for slot in range(begin, end):
                    later = min(slot + ahead, final)
                    prefetch(data, np.int64(col[later]) * stride + at, row_bytes)
                    source = np.int64(col[slot])
                    spot = source * stride + at
                    if lo is not None:
                        low = lo[np.uint64(source)]
                        step = scale[np.uint64(source)]
                    if weight is None and lo is None:
                        largest = max_row(largest, data, spot, None, 0, one, zero, bits, columns)
                    elif weight is None:
                        largest = max_row(largest, data, spot, None, 0, step, low, bits, columns)
                    else:
                        edge = np.int64(slot if perm is None else perm[slot])
                        for head in range(heads):
                            each = weight[np.uint64(edge * heads + head)]
                            factors[head * channels : (head + 1) * channels] = each
                        largest = max_row(
                            largest, data, spot, factors, LANES * group, step, low, bits, columns
                        )
                if weight is not None:
                    store_row(out, place, largest, one, zero, FLOAT, columns)
                elif lo is not None:
                    store_row(out, place, largest, one, zero, bits, columns)
                else:
                    store_row(out, place, largest, step, low, bits, columns)

    return kernel


@cache
def _compiled(loop: Callable[..., Any], *literals: int) -> Callable[..., None]:
    """The loop for ``literals``: numba's cache tells the closures of a function apart."""
    return njit(cache=True, nogil=True)(loop(*literals))
