"""The first half of a tensor train as a table of small matrices, of those that occur."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.tt_chunks import (
    add_chunks,
    count_chunks,
    even_bounds,
    fixed_chunks,
    over_chunks,
)
from lit_gnncompress.kernels.cpu.tt_pairs import (
    InnerSums,
    add_pair_gradient,
    filled_up,
    left_pair,
    multiply_pair,
    outer_by_column,
    pack_inner,
)
from lit_gnncompress.kernels.cpu.tt_tiles import address, copy, padded

_KEYS_A_ROW = 16
"""More pairs than that, and those that occur are found by sorting, not by marking."""


class LeftTable(NamedTuple):
    """What rows multiply the second half with.

    Attributes:
        rows: float32, shape ``(U, columns of the half, rank filled up)``.
        place: Row of the table for each slot, int32, shape ``(B,)``.
        keys: Pair of each row, int32, shape ``(U,)``, sorted; ``None`` if the half is one core.
    """

    rows: Tensor
    place: Tensor
    keys: Tensor | None


def left_table(cores: list[Tensor], left: Tensor) -> LeftTable:
    """That of the digits ``left``: all slices of one core, the pairs of two that occur."""
    if len(cores) == 1:
        core = cores[0].squeeze(1)
        return LeftTable(filled_up(core, padded(core.size(2))), left, None)
    pair = left_pair(cores)
    # The slices of the inner core, which is the second here, are to follow each other.
    keys = left % cores[1].size(0) * cores[0].size(0) + left // cores[1].size(0)
    if pair.num_pairs > _KEYS_A_ROW * keys.numel():
        present, place = keys.unique(return_inverse=True)
    else:
        place = torch.empty_like(keys)
        marks = torch.zeros(pair.num_pairs, dtype=torch.int32)
        present = keys.new_empty(_mark(keys.numpy(), marks.numpy(), place.numpy()))
        _list(marks.numpy(), present.numpy())
    rank = padded(pair.rank)
    rows = torch.empty(present.size(0), pair.width, rank, dtype=torch.float32)
    work = rows.numel() * pair.inner.size(3)
    over_chunks(
        _multiply(rank),
        even_bounds(count_chunks(work), present.size(0)),
        work,
        (pair.inner[0].numel() // pair.rank * rank,),
        pair.inner.numpy(),
        pair.outer.numpy(),
        present.numpy(),
        rows.numpy(),
    )
    return LeftTable(rows, place.int(), present)


def left_gradients(cores: list[Tensor], table: LeftTable, of_rows: Tensor) -> list[Tensor]:
    """Gradients to the cores of the half, of those to the rows of the table."""
    if table.keys is None:
        return [of_rows[..., : cores[0].size(3)].unsqueeze(1)]
    pair = left_pair(cores)
    rank, outer_rank = padded(pair.rank), padded(pair.inner.size(3))
    outer_by_k = outer_by_column(pair, outer_rank)
    chunks = fixed_chunks(table.keys.size(0), of_rows.numel(), outer_by_k.numel())
    outer_sums = torch.zeros(chunks, *outer_by_k.shape, dtype=torch.float32)
    inner_sums = InnerSums.of(pair, chunks, rank, outer_rank)
    over_chunks(
        _differentiate(rank, outer_rank),
        even_bounds(chunks, table.keys.size(0)),
        2 * of_rows.numel() * pair.inner.size(3),
        (
            pair.inner[0].numel() // pair.rank * rank,
            pair.inner[0].numel() // pair.inner.size(3) * outer_rank,
            pair.width * rank,
        ),
        pair.inner.numpy(),
        outer_by_k.numpy(),
        table.keys.numpy(),
        of_rows.numpy(),
        outer_sums.numpy(),
        *inner_sums.arrays,
    )
    of_first = add_chunks(outer_sums)[..., : pair.inner.size(3)].unsqueeze(1)
    return [of_first, inner_sums.total(pair).transpose(1, 3)]


@njit(cache=True, nogil=True)
def _mark(keys, marks, place):
    """Numbers the keys that occur, from 1, in their order; how many there are."""
    for key in keys:
        marks[key] = 1
    count = 0
    for key in range(len(marks)):
        count += marks[key]
        marks[key] *= count
    for i in range(len(keys)):
        place[i] = marks[keys[i]] - 1
    return count


@njit(cache=True, nogil=True)
def _list(marks, present):
    for key in range(len(marks)):
        if marks[key]:
            present[marks[key] - 1] = key


@cache
def _multiply(RANK: int) -> Callable[..., None]:
    @njit(cache=True, nogil=True)
    def kernel(first, last, bounds, scratch, inner, outer, keys, rows):
        outers, _, width = outer.shape
        shape = inner.shape
        (by_s,) = scratch
        for chunk in range(first, last):
            at, packed = chunk * by_s.shape[1], -1
            for row in range(bounds[chunk], bounds[chunk + 1]):
                i = keys[row] // outers
                if i != packed:
                    pack_inner(inner, i, RANK, by_s.reshape(-1), at, by_s.reshape(-1), 0, 0)
                    packed = i
                multiply_pair(
                    address(by_s) + 4 * at,
                    address(outer) + 4 * (keys[row] - i * outers) * shape[3] * width,
                    shape,
                    address(rows) + 4 * row * rows[0].size,
                    RANK,
                    shape[2] * RANK,
                    width,
                    RANK,
                )

    return kernel


@cache
def _differentiate(RANK: int, OUTER_RANK: int) -> Callable[..., None]:
    @njit(cache=True, nogil=True)
    def kernel(
        first, last, bounds, scratch, inner, outer_by_k, keys, of_rows, outer_sums, inner_sums,
        inner_edges, edge_slices,
    ):  # fmt: skip
        outers, width, _ = outer_by_k.shape
        shape = inner.shape
        by_s, by_r, tiles = scratch
        for chunk in range(first, last):
            by_s_at, by_r_at = chunk * by_s.shape[1], chunk * by_r.shape[1]
            tile = address(tiles) + 4 * chunk * tiles.shape[1]
            packed, starts = -1, True
            for row in range(bounds[chunk], bounds[chunk + 1]):
                i = keys[row] // outers
                k = keys[row] - i * outers
                if i != packed:
                    pack_inner(
                        inner, i, RANK, by_s.reshape(-1), by_s_at, by_r.reshape(-1), by_r_at,
                        OUTER_RANK,
                    )  # fmt: skip
                    starts = packed < 0
                    packed = i
                if starts:
                    edge_slices[chunk] = i
                    of_inner = address(inner_edges) + 4 * chunk * inner_edges[0].size
                else:
                    of_inner = address(inner_sums) + 4 * i * inner_sums[0].size
                source = address(of_rows) + 4 * row * of_rows[0].size
                for column in range(width):
                    for j in range(shape[2]):
                        copy(source, tile + 4 * (j * width + column) * RANK, RANK)
                        source += 4 * RANK
                add_pair_gradient(
                    tile,
                    address(by_r) + 4 * by_r_at,
                    address(outer_by_k) + 4 * k * width * OUTER_RANK,
                    shape,
                    width,
                    of_inner,
                    address(outer_sums) + 4 * (chunk * outers + k) * width * OUTER_RANK,
                    RANK,
                    OUTER_RANK,
                )

    return kernel
