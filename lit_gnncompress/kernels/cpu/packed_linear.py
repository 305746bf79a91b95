"""Numba: ``packed_linear``, by look-up at 1 and 2 bits, by blocks of unpacked rows above."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch.nn.functional as F
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.large_pages import empty_rows
from lit_gnncompress.kernels.cpu.row_chunks import in_chunks
from lit_gnncompress.kernels.cpu.tiles import (
    LANES,
    aligned_floats,
    fill_table,
    finish_rows,
    fma_tile,
    look_up,
    prefetch,
    unpack_groups,
)

_ROWS = 60  # unpacked at a time: five tiles
_TILE = 12
_DEPTH = 1024  # columns unpacked at a time: 60 rows of them fit into half an L2 cache
_STRIDE = _DEPTH + LANES  # not a power of two, which rows of a tile would contend for in L1
_TABLE_ROWS = 512  # that share a table
_PRODUCTS = 4  # that take as long as a code in other kernels
_NIBBLES = 16  # in a table of 16 KB, half an L1 cache


def packed_linear(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, weight: Tensor
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_linear`."""
    rows, outputs = packed.size(0), weight.size(0)
    weight = weight.detach().contiguous()
    if not weight.numel():
        return weight.new_zeros(rows, outputs)
    out = empty_rows(rows, outputs)
    panel = LANES if bits <= 2 or outputs <= LANES else 2 * LANES
    padded = _round_up(outputs, panel)
    filled = F.pad(weight, (0, _round_up(width, LANES) - width, 0, padded - outputs))
    # (panels, F, panel): what a tile reads is contiguous
    filled = filled.view(padded // panel, panel, -1).transpose(1, 2).contiguous()
    kernel, block = (_look_up, _TABLE_ROWS) if bits <= 2 else (_unpack, _ROWS)
    if bits > 2 and padded == panel:
        block = _TILE  # nothing to gain from a second tile
    in_chunks(
        kernel,
        -(-rows // block),
        block * width * padded // _PRODUCTS,
        block,
        packed.contiguous().view(-1).numpy(),
        packed.size(1),
        lo.contiguous().numpy(),
        scale.contiguous().numpy(),
        bits,
        filled.numpy(),
        F.pad(weight.sum(1), (0, padded - outputs)).numpy(),
        out.numpy(),
    )
    return out


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


@njit(cache=True, nogil=True)
def _look_up(first, last, most, packed, row_bytes, lo, scale, bits, weight, of_lo, out):
    panels, width, _ = weight.shape
    flat = weight.reshape(-1)
    table = aligned_floats(_NIBBLES * 16 * LANES)
    sums = aligned_floats(most * LANES)
    for block in range(first * panels, last * panels):
        begin, p = block // panels * most, block % panels
        rows = min(most, out.shape[0] - begin)
        sums[:] = 0
        at = 0
        while at < row_bytes:
            nibbles = _NIBBLES if at + _NIBBLES // 2 <= row_bytes else 4
            for n in range(nibbles):
                column = p * width + (2 * at + n) * 4 // bits
                if bits == 1:
                    fill_table(flat, column * LANES, table, n * 16 * LANES, 1)
                else:
                    fill_table(flat, column * LANES, table, n * 16 * LANES, 2)
            place = begin * row_bytes + at
            if nibbles == _NIBBLES:
                for r in range(rows):
                    look_up(packed, place + r * row_bytes, table, sums, r * LANES, _NIBBLES)
            else:
                for r in range(rows):
                    look_up(packed, place + r * row_bytes, table, sums, r * LANES, 4)
            at += nibbles // 2
        finish_rows(sums, 0, LANES, lo, scale, None, of_lo, out, begin, rows, p * LANES)


@njit(cache=True, nogil=True)
def _unpack(first, last, most, packed, row_bytes, lo, scale, bits, weight, of_lo, out):
    panels, width, lanes = weight.shape
    flat = weight.reshape(-1)
    codes = aligned_floats(most * _STRIDE)
    sums = aligned_floats(panels * most * lanes)
    for block in range(first, last):
        begin = block * most
        rows = min(most, out.shape[0] - begin)
        sums[:] = 0
        for column in range(0, width, _DEPTH):
            depth = min(_DEPTH, width - column)
            for r in range(rows):
                at = (begin + r) * row_bytes + column * bits // 8
                unpack_groups(packed, at, codes, r * _STRIDE, depth // 16, bits)
                ahead = at + most * row_bytes
                for line in range(ahead, ahead + depth * bits // 8, 64):
                    prefetch(packed, line)
            for r in range(rows, -(-rows // _TILE) * _TILE):
                codes[r * _STRIDE : r * _STRIDE + depth] = 0
            for p in range(panels):
                w_at = (p * width + column) * lanes
                for r in range(0, rows, _TILE):
                    x_at, at = r * _STRIDE, (p * most + r) * lanes
                    if lanes == 32:
                        fma_tile(codes, x_at, 1, flat, w_at, depth, sums, at, 32, _STRIDE, _TILE, 2)
                    else:
                        fma_tile(codes, x_at, 1, flat, w_at, depth, sums, at, 16, _STRIDE, _TILE, 1)
        for p in range(panels):
            at = p * most * lanes
            finish_rows(sums, at, lanes, lo, scale, None, of_lo, out, begin, rows, p * lanes)
