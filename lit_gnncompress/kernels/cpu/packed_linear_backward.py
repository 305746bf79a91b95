"""Numba: ``packed_linear_backward``, by blocks of 64 rows and 64 columns."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.row_chunks import in_chunks
from lit_gnncompress.kernels.cpu.tiles import (
    LANES,
    aligned_floats,
    fma_tile,
    prefetch,
    unpack_groups,
)

_ROWS = 64  # unpacked at a time
_TILE = 2 * LANES  # columns of a tile
_MOST_TILES = 16  # side by side: 64 rows of them take 128 KB


def packed_linear_backward(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, grad: Tensor
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_linear_backward.packed_linear_backward`."""
    rows, outputs = grad.shape
    grad = grad.contiguous()
    if not (rows and outputs and width):
        return grad.new_zeros(outputs, width)
    out = grad.new_empty(outputs, width)
    of_lo = grad.sum(0) * lo if lo.size(0) == 1 else lo @ grad
    tiles = -(-width // _TILE)
    side_by_side = min(_MOST_TILES, max(1, -(-tiles // torch.get_num_threads())))
    # A thread has columns of its own: sums do not depend on how many there are.
    in_chunks(
        _columns,
        -(-tiles // side_by_side),
        rows * side_by_side * _TILE * outputs // LANES,
        side_by_side,
        packed.contiguous().view(-1).numpy(),
        packed.size(1),
        scale.contiguous().numpy(),
        bits,
        grad.numpy(),
        of_lo.numpy(),
        out.numpy(),
    )
    return out


@njit(cache=True, nogil=True)
def _columns(first, last, side_by_side, packed, row_bytes, scale, bits, grad, of_lo, out):
    rows, outputs = grad.shape
    width = out.shape[1]
    height = -(-outputs // 4) * 4
    codes = aligned_floats(side_by_side * _ROWS * _TILE)
    left = aligned_floats(_ROWS * height)
    sums = aligned_floats(side_by_side * height * _TILE)
    codes[:] = 0
    left[:] = 0
    for block in range(first, last):
        begin = block * side_by_side * _TILE
        groups = min(2 * side_by_side, -(-(width - begin) // LANES))
        tiles = -(-groups // 2)
        if groups % 2:
            codes[:] = 0
        sums[:] = 0
        for row in range(0, rows, _ROWS):
            depth = min(_ROWS, rows - row)
            for r in range(depth):
                at = (row + r) * row_bytes + begin * bits // 8
                for line in range(0, 2 * groups * bits, 64):
                    prefetch(packed, at + _ROWS * row_bytes + line)
                for t in range(tiles):
                    place = (t * _ROWS + r) * _TILE
                    some = min(2, groups - 2 * t)
                    unpack_groups(packed, at + 4 * t * bits, codes, place, some, bits)
            _fill_left(left, grad, row, depth, height, scale)
            for t in range(tiles):
                _add_products(
                    left, codes, t * _ROWS * _TILE, depth, sums, t * height * _TILE, height
                )
        for o in range(outputs):
            for t in range(tiles):
                f, at = begin + t * _TILE, (t * height + o) * _TILE
                for k in range(min(_TILE, width - f)):
                    out[o, f + k] = sums[at + k] + of_lo[o]


@njit(cache=True, nogil=True)
def _tile_height(height):
    """Outputs of the next tile, where ``height`` are left."""
    return 12 if height >= 12 else 8 if height >= 8 else 4


@njit(cache=True, nogil=True)
def _fill_left(left, grad, row, depth, height, scale):
    """Gradients times scales; those that a tile takes lie together."""
    o = 0
    while o < height:
        tall = _tile_height(height - o)
        there = min(tall, grad.shape[1] - o)
        for r in range(depth):
            step = scale[row + r] if scale.size > 1 else scale[0]
            for i in range(there):
                left[o * _ROWS + r * tall + i] = step * grad[row + r, o + i]
        o += tall


@njit(cache=True, nogil=True)
def _add_products(left, codes, codes_at, depth, sums, sums_at, height):
    o = 0
    while o < height:
        tall, at, a_at = _tile_height(height - o), sums_at + o * _TILE, o * _ROWS
        if tall == 12:
            fma_tile(left, a_at, 12, codes, codes_at, depth, sums, at, _TILE, 1, 12, 2)
        elif tall == 8:
            fma_tile(left, a_at, 8, codes, codes_at, depth, sums, at, _TILE, 1, 8, 2)
        else:
            fma_tile(left, a_at, 4, codes, codes_at, depth, sums, at, _TILE, 1, 4, 2)
        o += tall
