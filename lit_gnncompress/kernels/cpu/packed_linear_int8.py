"""Numba: ``packed_linear_int8``, by blocks of rows unpacked to bytes."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.large_pages import empty_rows
from lit_gnncompress.kernels.cpu.row_chunks import in_chunks
from lit_gnncompress.kernels.cpu.tiles import LANES, finish_rows, int8_tile, prefetch, unpack_groups

_ROWS = 60  # unpacked at a time: five tiles
_TILE = 12
_DEPTH = 2048  # columns unpacked at a time
_EXACT = 1 << 16  # columns whose products sum up to less than 2 ** 31
_STRIDE = _DEPTH + 4 * LANES  # not a power of two, which rows of a tile would contend for in L1


def packed_linear_int8(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    weight: Tensor,
    weight_scale: Tensor,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_linear_int8`."""
    rows, outputs = packed.size(0), weight.size(0)
    if not weight.numel():
        return weight_scale.new_zeros(rows, outputs)
    out = empty_rows(rows, outputs)
    panel = LANES if outputs <= LANES else 2 * LANES
    columns, padded = -width % LANES, -outputs % panel
    filled = F.pad(weight, (0, columns, 0, padded))
    # (panels, F / 4, panel, 4): what a tile reads is contiguous
    filled = filled.view(-1, panel, filled.size(1) // 4, 4).transpose(1, 2).contiguous()
    of_lo = F.pad(weight.sum(1).mul(weight_scale), (0, padded))
    block = _TILE if filled.size(0) == 1 else _ROWS
    in_chunks(
        _unpack,
        -(-rows // block),
        block * width * (outputs + padded) // (4 * LANES),
        block,
        packed.contiguous().view(-1).numpy(),
        packed.size(1),
        lo.contiguous().numpy(),
        scale.contiguous().numpy(),
        bits,
        filled.numpy(),
        F.pad(weight_scale, (0, padded)).numpy(),
        of_lo.numpy(),
        out.numpy(),
    )
    return out


@njit(cache=True, nogil=True)
def _unpack(
    first, last, most, packed, row_bytes, lo, scale, bits, weight, weight_scale, of_lo, out
):
    panels, fours, lanes, _ = weight.shape
    width = 4 * fours
    flat = weight.reshape(-1)
    codes = np.zeros(most * _STRIDE, np.uint8)
    sums = np.empty(panels * most * lanes, np.int32)
    for block in range(first, last):
        begin = block * most
        rows = min(most, out.shape[0] - begin)
        sums[:] = 0
        for column in range(0, width, _DEPTH):
            if column % _EXACT == 0 and column > 0:
                sums[:] = 0
            depth = min(_DEPTH, width - column)
            for r in range(rows):
                at = (begin + r) * row_bytes + column * bits // 8
                unpack_groups(packed, at, codes, r * _STRIDE, depth // 16, bits)
                ahead = at + most * row_bytes
                for line in range(ahead, ahead + depth * bits // 8, 64):
                    prefetch(packed, line)
            for p in range(panels):
                w_at = (p * width + column) * lanes
                for r in range(0, rows, _TILE):
                    x_at, at = r * _STRIDE, (p * most + r) * lanes
                    if lanes == 32:
                        int8_tile(codes, x_at, flat, w_at, depth // 4, sums, at, _STRIDE, _TILE, 2)
                    else:
                        int8_tile(codes, x_at, flat, w_at, depth // 4, sums, at, _STRIDE, _TILE, 1)
            if column + depth == width or (column + depth) % _EXACT == 0:
                for p in range(panels):
                    at = p * most * lanes
                    if column < _EXACT:
                        finish_rows(
                            sums,
                            at,
                            lanes,
                            lo,
                            scale,
                            weight_scale,
                            of_lo,
                            out,
                            begin,
                            rows,
                            p * lanes,
                        )
                    else:
                        _add_rows(sums, at, lanes, scale, weight_scale, out, begin, rows, p * lanes)


@njit(cache=True, nogil=True)
def _add_rows(sums, at, lanes, scale, weight_scale, out, begin, rows, first):
    """What columns beyond the first ``_EXACT`` add."""
    for r in range(rows):
        step = scale[begin + r] if scale.size > 1 else scale[0]
        for k in range(min(lanes, out.shape[1] - first)):
            total = np.float32(sums[at + r * lanes + k])
            out[begin + r, first + k] += step * weight_scale[first + k] * total
