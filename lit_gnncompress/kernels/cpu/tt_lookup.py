"""Numba: ``tt_lookup``, the rows of a pair of digits together."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.tt_bags import Bags, Slots
from lit_gnncompress.kernels.cpu.tt_chunks import count_chunks, even_bounds, over_chunks
from lit_gnncompress.kernels.cpu.tt_left import left_table
from lit_gnncompress.kernels.cpu.tt_pairs import multiply_pair, pack_inner, right_pair
from lit_gnncompress.kernels.cpu.tt_sort import sort_indices
from lit_gnncompress.kernels.cpu.tt_tiles import (
    address,
    copy,
    padded,
    prefetch,
    product,
    scale,
    transpose_8,
)
from lit_gnncompress.kernels.reference.tt_lookup import tt_lookup as reference


def tt_lookup(
    indices: Tensor, cores: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_lookup`."""
    if cores[0].dtype.itemsize == 8:
        return reference(indices, cores, keep)
    out, perm, left, right = look_up(indices, cores, keep, Bags(indices.numel()))
    return out.view(*indices.shape, out.size(1)), perm, left, right


def look_up(
    indices: Tensor, cores: list[Tensor], keep: bool, bags: Bags
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of rows by bag, shape ``(bags.num_bags, D)``; the rest as ``tt_lookup`` returns it."""
    dtype = cores[0].dtype
    cores = [core.detach().float().contiguous() for core in cores]
    half = len(cores) // 2
    behind = math.prod(core.size(0) for core in cores[half:])
    capacity = behind * math.prod(core.size(0) for core in cores[:half])
    perm, left, right = sort_indices(indices, capacity, behind)
    width = math.prod(core.size(2) for core in cores)
    out = cores[0].new_empty(bags.num_bags, width)
    if bags.of_index is not None:
        out.zero_()
    if indices.numel():
        pair = right_pair(cores[half:])
        table = left_table(cores[:half], left)
        rank, columns = padded(pair.rank), padded(pair.width)
        work = indices.numel() * width * pair.rank
        bounds = even_bounds(count_chunks(work), indices.numel())
        slots = Slots(bounds, perm, table.place, right).by_bag(bags)
        size = table.rows[0].numel()
        over_chunks(
            _compiled(rank, columns),
            slots.bounds,
            work,
            (
                pair.inner[0].numel() // pair.rank * rank,
                columns * rank,
                columns * rank,
                table.rows.size(1) * columns,
                size if bags.weights is not None else 0,
            ),
            table.rows.numpy(),
            pair.inner.numpy(),
            pair.outer.numpy(),
            slots.perm.numpy(),
            slots.place.numpy(),
            slots.right.numpy(),
            *bags.arrays,
            out.numpy(),
        )
    if not keep:
        perm, left, right = (left.new_empty(0) for _ in range(3))
    return out.to(dtype), perm, left, right


_AHEAD = 16
"""Rows between the one that is asked for and the one that is written."""


@cache
def _compiled(RANK: int, COLUMNS: int) -> Callable[..., None]:
    @njit(cache=True, nogil=True)
    def kernel(
        first, last, bounds, scratch, table, inner, outer, perm, place, right, bag, weight, out
    ):
        _, height, _ = table.shape
        outers, _, outer_width = outer.shape
        width = out.shape[1] // height
        by_s, tiles, transposed, results, weighted = scratch
        size = height * RANK
        shape = inner.shape
        for chunk in range(first, last):
            packed = -1
            slot, end = bounds[chunk], bounds[chunk + 1]
            tile = address(tiles) + 4 * chunk * tiles.shape[1]
            b = address(transposed) + 4 * chunk * transposed.shape[1]
            result = address(results) + 4 * chunk * results.shape[1]
            scaled = address(weighted) + 4 * chunk * weighted.shape[1]
            by_s_at = chunk * by_s.shape[1]
            while slot < end:
                key = right[slot]
                i = key // outers
                if i != packed:
                    pack_inner(inner, i, RANK, by_s.reshape(-1), by_s_at, by_s.reshape(-1), 0, 0)
                    packed = i
                multiply_pair(
                    address(by_s) + 4 * by_s_at,
                    address(outer) + 4 * (key - i * outers) * shape[3] * outer_width,
                    shape, tile, outer_width * RANK, RANK, outer_width, RANK,
                )  # fmt: skip
                for j in range(0, COLUMNS, 8):
                    for r in range(0, RANK, 8):
                        transpose_8(
                            tile + 4 * (j * RANK + r), RANK, b + 4 * (r * COLUMNS + j), COLUMNS
                        )
                while slot < end and right[slot] == key:
                    a = address(table) + 4 * place[slot] * size
                    if weight is not None:
                        scale(a, weight[perm[slot]], scaled, size)
                        a = scaled
                    later = perm[min(slot + _AHEAD, len(perm) - 1)]
                    if bag is None:
                        target = perm[slot]
                    else:
                        target = bag[perm[slot]]
                        later = bag[later]
                    row = address(out) + 4 * target * height * width
                    prefetch(address(out) + 4 * later * height * width, height * width, True)
                    if width == COLUMNS:
                        if bag is None:
                            product(
                                a, 1, b, COLUMNS, shape[1],
                                row, COLUMNS, height, RANK, COLUMNS, False,
                            )  # fmt: skip
                        else:
                            product(
                                a, 1, b, COLUMNS, shape[1],
                                row, COLUMNS, height, RANK, COLUMNS, True,
                            )  # fmt: skip
                    else:
                        product(
                            a, 1, b, COLUMNS, shape[1],
                            result, COLUMNS, height, RANK, COLUMNS, False,
                        )  # fmt: skip
                        for j in range(height):
                            if bag is None:
                                copy(result + 4 * j * COLUMNS, row + 4 * j * width, width)
                            else:
                                for c in range(width):
                                    out[target, j * width + c] += results[chunk, j * COLUMNS + c]
                    slot += 1

    return kernel
