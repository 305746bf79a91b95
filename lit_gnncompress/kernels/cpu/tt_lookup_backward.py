"""Numba: ``tt_lookup_backward``, sums of the rows of a pair of digits first.

Every chunk of rows sums into memory of its own, and these are added in their order. How many there
are follows from shapes, not from the number of threads: gradients are the same bits every time.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.tt_bags import Bags
from lit_gnncompress.kernels.cpu.tt_chunks import (
    add_chunks,
    even_bounds,
    fixed_chunks,
    over_chunks,
)
from lit_gnncompress.kernels.cpu.tt_left import left_gradients, left_table
from lit_gnncompress.kernels.cpu.tt_pairs import (
    InnerSums,
    add_pair_gradient,
    multiply_pair,
    outer_by_column,
    pack_inner,
    right_pair,
)
from lit_gnncompress.kernels.cpu.tt_tiles import (
    add_vectors,
    address,
    copy,
    dot,
    padded,
    prefetch,
    product,
    scale,
)
from lit_gnncompress.kernels.reference.tt_lookup_backward import tt_lookup_backward as reference

_BLOCK = 64
"""Rows of the small matrices that are put side by side, for one product of all."""

_AHEAD = 8
"""Rows between the one that is asked for and the one that is read."""


def tt_lookup_backward(
    grad: Tensor, cores: list[Tensor], perm: Tensor, left: Tensor, right: Tensor
) -> list[Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_lookup_backward.tt_lookup_backward`."""
    if cores[0].dtype.itemsize == 8:
        return reference(grad, cores, perm, left, right)
    return differentiate(grad, cores, perm, left, right, Bags(perm.numel()), None)


def differentiate(
    grad: Tensor,
    cores: list[Tensor],
    perm: Tensor,
    left: Tensor,
    right: Tensor,
    bags: Bags,
    of_weights: Tensor | None,
) -> list[Tensor]:
    """Gradients to the cores, of those to sums of rows by bag.

    Args:
        grad: Shape ``(…, D)``, a row for each bag.
        cores: As of ``tt_lookup_backward``, and so up to ``right``.
        perm: See ``cores``.
        left: See ``cores``.
        right: See ``cores``.
        bags: As in the forward pass.
        of_weights: Gets the gradient to the weights, float32, shape ``(B,)``.
    """
    dtype, rows = cores[0].dtype, perm.size(0)
    if rows == 0:
        return [torch.zeros_like(core, memory_format=torch.contiguous_format) for core in cores]
    cores = [core.detach().float().contiguous() for core in cores]
    half = len(cores) // 2
    pair = right_pair(cores[half:])
    table = left_table(cores[:half], left)
    grad = grad.detach().float().contiguous()
    rank, columns = padded(pair.rank), padded(pair.width)
    outer_rank = padded(pair.inner.size(3)) if len(cores) > 2 else 0
    outer_by_k = outer_by_column(pair, outer_rank)
    size = rows * grad.size(-1)
    chunks = fixed_chunks(rows, size, table.rows.numel() + outer_by_k.numel())
    left_sums = torch.zeros(chunks, *table.rows.shape, dtype=torch.float32)
    outer_sums = torch.zeros(chunks, *outer_by_k.shape, dtype=torch.float32)
    inner_sums = InnerSums.of(pair, chunks, rank, outer_rank)
    height = table.rows.size(1)
    block = max(1, _BLOCK // height)
    over_chunks(
        _compiled(rank, columns, outer_rank),
        even_bounds(chunks, rows),
        2 * size * pair.rank,
        (
            pair.inner[0].numel() // pair.rank * rank,
            pair.inner[0].numel() // pair.inner.size(3) * outer_rank,
            columns * rank,
            columns * rank,
            block * height * rank,
            block * height * columns,
            block * height * rank,
        ),
        block,
        table.rows.numpy(),
        pair.inner.numpy(),
        pair.outer.numpy(),
        outer_by_k.numpy(),
        perm.numpy(),
        table.place.numpy(),
        right.numpy(),
        *bags.arrays,
        grad.view(-1).numpy(),
        None if of_weights is None else of_weights.numpy(),
        left_sums.numpy(),
        outer_sums.numpy(),
        *inner_sums.arrays,
    )
    of_left = left_gradients(cores[:half], table, add_chunks(left_sums))
    of_right = [inner_sums.total(pair)]
    if len(cores) > 2:
        of_outer = add_chunks(outer_sums)[..., : pair.inner.size(3)]
        of_right.append(of_outer.transpose(1, 2).unsqueeze(3))
    return [found.to(dtype).contiguous() for found in of_left + of_right]


@cache
def _compiled(RANK: int, COLUMNS: int, OUTER_RANK: int) -> Callable[..., None]:
    @njit(cache=True, nogil=True)
    def kernel(
        first, last, bounds, scratch, block, table, inner, outer, outer_by_k, perm, place, right,
        bag, weight, grad, of_weight, left_sums, outer_sums, inner_sums, inner_edges, edge_slices,
    ):  # fmt: skip
        height = table.shape[1]
        outers, _, outer_width = outer.shape
        shape = inner.shape
        width = shape[2] * outer_width
        size = height * RANK
        by_s, by_r, tiles, tile_sums, lefts, grads, products = scratch
        for chunk in range(first, last):
            by_s_at, by_r_at = chunk * by_s.shape[1], chunk * by_r.shape[1]
            tile = address(tiles) + 4 * chunk * tiles.shape[1]
            tile_sum = address(tile_sums) + 4 * chunk * tile_sums.shape[1]
            a = address(lefts) + 4 * chunk * lefts.shape[1]
            g = address(grads) + 4 * chunk * grads.shape[1]
            of_a = address(products) + 4 * chunk * products.shape[1]
            left_sum = address(left_sums) + 4 * chunk * table.shape[0] * size
            packed, starts = -1, True
            slot, end = bounds[chunk], bounds[chunk + 1]
            while slot < end:
                key = right[slot]
                i = key // outers
                k = key - i * outers
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
                multiply_pair(
                    address(by_s) + 4 * by_s_at,
                    address(outer) + 4 * k * shape[3] * outer_width,
                    shape, tile, outer_width * RANK, RANK, outer_width, RANK,
                )  # fmt: skip
                tile_sums[chunk, : width * RANK] = 0
                while slot < end and right[slot] == key:
                    count = 0
                    while count < block and slot + count < end and right[slot + count] == key:
                        at = slot + count
                        later = perm[min(at + _AHEAD, len(perm) - 1)]
                        if bag is None:
                            source = perm[at]
                        else:
                            source = bag[perm[at]]
                            later = bag[later]
                        prefetch(address(grad) + 4 * later * height * width, height * width, False)
                        copy(address(table) + 4 * place[at] * size, a + 4 * count * size, size)
                        row = address(grad) + 4 * source * height * width
                        if width == COLUMNS:
                            copy(row, g + 4 * count * height * width, height * width)
                        else:
                            for j in range(height):
                                copy(
                                    row + 4 * j * width,
                                    g + 4 * (count * height + j) * COLUMNS,
                                    width,
                                )
                        count += 1
                    product(
                        g, 1, tile, RANK, width,
                        of_a, RANK, count * height, COLUMNS, RANK, False,
                    )  # fmt: skip
                    if weight is not None:
                        for t in range(count):
                            of_row, row = of_a + 4 * t * size, a + 4 * t * size
                            if of_weight is not None:
                                of_weight[perm[slot + t]] = dot(row, of_row, size)
                            scale(row, weight[perm[slot + t]], row, size)
                            scale(of_row, weight[perm[slot + t]], of_row, size)
                    product(
                        g, COLUMNS, a, RANK, count * height,
                        tile_sum, RANK, width, 1, RANK, True,
                    )  # fmt: skip
                    for t in range(count):
                        add_vectors(
                            of_a + 4 * t * size, left_sum + 4 * place[slot + t] * size, size
                        )
                    slot += count
                if OUTER_RANK == 0:
                    add_vectors(tile_sum, of_inner, width * RANK)
                else:
                    add_pair_gradient(
                        tile_sum,
                        address(by_r) + 4 * by_r_at,
                        address(outer_by_k) + 4 * k * outer_width * OUTER_RANK,
                        shape, outer_width, of_inner,
                        address(outer_sums)
                        + 4 * (chunk * outers + k) * outer_width * OUTER_RANK,
                        RANK, OUTER_RANK,
                    )  # fmt: skip

    return kernel
