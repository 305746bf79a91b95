"""Numba: ``sparse_linear``, one row of the weight for each stored code."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.sparse_rows import (
    checked_arrays,
    codes_from,
    columns_of_gaps,
    most_codes,
    sum_rows,
)
from lit_gnncompress.kernels.cpu.threads import over_rows
from lit_gnncompress.kernels.cpu.tiles import LANES, aligned_floats, finish_rows

_ROWS = 32  # whose codes are unpacked, and whose sums are finished together


def sparse_linear(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    weight: Tensor,
    first: Tensor | None = None,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.sparse_linear`."""
    weight = weight.detach().contiguous()
    outputs = weight.size(0)
    out = weight.new_empty(rowptr.size(0) - 1, outputs)
    pointers, places, codes, before = checked_arrays(rowptr, columns, values, first, width)
    if not weight.numel():
        return out.zero_()
    lanes = panel_lanes(outputs)
    padded = -(-outputs // lanes) * lanes
    filled = F.pad(weight, (0, 0, 0, padded - outputs)).view(-1, lanes, width)
    over_rows(
        _rows,
        pointers,
        padded // LANES,
        pointers,
        places,
        codes,
        before,
        lo.contiguous().numpy(),
        scale.contiguous().numpy(),
        bits,
        filled.transpose(1, 2).contiguous().numpy(),
        F.pad(weight.sum(1), (0, padded - outputs)).numpy(),
        out.numpy(),
    )
    return out


def panel_lanes(outputs: int) -> int:
    """Outputs that are summed together in registers."""
    return next((lanes for lanes in (16, 32, 64) if outputs <= lanes), 128)


@njit(cache=True, nogil=True)
def _rows(begin, end, rowptr, columns, values, before, lo, scale, bits, weight, of_lo, out):
    panels, width, lanes = weight.shape
    flat = weight.reshape(-1)
    sums = aligned_floats(_ROWS * lanes)
    own_columns = np.empty(width + LANES, np.int32)
    most = 0 if values is None else most_codes(before, begin, end, _ROWS)
    codes = aligned_floats(most + 2 * LANES)
    for block in range(begin, end, _ROWS):
        rows = min(_ROWS, end - block)
        offset = 0
        if values is not None:
            count = before[block + rows] - before[block]
            offset = codes_from(values, before[block], count, bits, codes) - before[block]
        for p in range(panels):
            at = p * width * lanes
            for r in range(rows):
                row = block + r
                start, count = rowptr[row], rowptr[row + 1] - rowptr[row]
                place = offset + before[row]
                if columns.itemsize == 1:
                    count = columns_of_gaps(columns, start, start + count, own_columns)
                    _sum(own_columns, 0, count, values, codes, place, flat, at, sums, r, lanes)
                else:
                    _sum(columns, start, count, values, codes, place, flat, at, sums, r, lanes)
            finish_rows(sums, 0, lanes, lo, scale, None, of_lo, out, block, rows, p * lanes)


@njit(cache=True, nogil=True)
def _sum(columns, start, count, values, codes, codes_at, weight, at, sums, row, lanes):
    if lanes == 16:
        sum_rows(columns, start, count, values, codes, codes_at, weight, at, sums, row * 16, 1)
    elif lanes == 32:
        sum_rows(columns, start, count, values, codes, codes_at, weight, at, sums, row * 32, 2)
    elif lanes == 64:
        sum_rows(columns, start, count, values, codes, codes_at, weight, at, sums, row * 64, 4)
    else:
        sum_rows(columns, start, count, values, codes, codes_at, weight, at, sums, row * 128, 8)
