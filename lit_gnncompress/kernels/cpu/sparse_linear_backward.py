"""Numba: ``sparse_linear_backward``, one row of the gradient for each stored code."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.row_chunks import in_chunks
from lit_gnncompress.kernels.cpu.sparse_linear import panel_lanes
from lit_gnncompress.kernels.cpu.sparse_rows import (
    add_to_rows,
    checked_arrays,
    codes_from,
    columns_of_gaps,
    most_codes,
)
from lit_gnncompress.kernels.cpu.tiles import LANES, aligned_floats

_ROWS = 32  # whose codes are unpacked together
_WORTH_A_SUM = 1 << 15  # entries


def sparse_linear_backward(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    grad: Tensor,
    first: Tensor | None = None,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.sparse_linear_backward.sparse_linear_backward`."""
    outputs = grad.size(1)
    grad = grad.contiguous()
    pointers, places, codes, before = checked_arrays(rowptr, columns, values, first, width)
    if not (outputs and width):
        return grad.new_zeros(outputs, width)
    lanes = panel_lanes(outputs)
    panels = -(-outputs // lanes)
    # Parts have sums of their own. How many there are follows from the sizes alone, and so does
    # the result; together they are no larger than the gradient of 256 outputs.
    parts = max(1, min(8, 256 // (panels * lanes), len(places) // _WORTH_A_SUM))
    cuts = np.searchsorted(pointers, np.arange(parts + 1) * (len(places) / parts))
    cuts[0], cuts[-1] = 0, len(pointers) - 1
    sums = torch.zeros(parts, panels, width, lanes, dtype=torch.float32)
    in_chunks(
        _parts,
        parts * panels,
        len(places) * lanes // LANES // parts,
        cuts,
        pointers,
        places,
        codes,
        before,
        scale.contiguous().numpy(),
        bits,
        grad.numpy(),
        sums.numpy(),
    )
    total = sums[0] if parts == 1 else sums.sum(0)
    total = total.transpose(1, 2).reshape(panels * lanes, width)[:outputs]
    of_lo = grad.sum(0) * lo if lo.size(0) == 1 else lo @ grad
    return torch.add(total, of_lo.unsqueeze(1), out=grad.new_empty(outputs, width))


@njit(cache=True, nogil=True)
def _parts(first, last, cuts, rowptr, columns, values, before, scale, bits, grad, sums):
    _, panels, width, lanes = sums.shape
    flat = sums.reshape(-1)
    right = aligned_floats(lanes)
    right[:] = 0
    own_columns = np.empty(width + LANES, np.int32)
    most = 0 if values is None else most_codes(before, 0, len(before) - 1, _ROWS)
    codes = aligned_floats(most + 2 * LANES)
    for part_panel in range(first, last):
        part, p = part_panel // panels, part_panel % panels
        at, begin = part_panel * width * lanes, p * lanes
        outputs = min(lanes, grad.shape[1] - begin)
        offset = 0
        for row in range(cuts[part], cuts[part + 1]):
            if values is not None and (row == cuts[part] or row % _ROWS == 0):
                until = min(row // _ROWS * _ROWS + _ROWS, len(before) - 1)
                count = before[until] - before[row]
                offset = codes_from(values, before[row], count, bits, codes) - before[row]
            step = scale[row] if scale.size > 1 else scale[0]
            for k in range(outputs):
                right[k] = step * grad[row, begin + k]
            start, count = rowptr[row], rowptr[row + 1] - rowptr[row]
            place = offset + before[row]
            if columns.itemsize == 1:
                count = columns_of_gaps(columns, start, start + count, own_columns)
                _add(own_columns, 0, count, values, codes, place, flat, at, right, lanes)
            else:
                _add(columns, start, count, values, codes, place, flat, at, right, lanes)


@njit(cache=True, nogil=True)
def _add(columns, start, count, values, codes, codes_at, sums, at, right, lanes):
    if lanes == 16:
        add_to_rows(columns, start, count, values, codes, codes_at, sums, at, right, 1)
    elif lanes == 32:
        add_to_rows(columns, start, count, values, codes, codes_at, sums, at, right, 2)
    elif lanes == 64:
        add_to_rows(columns, start, count, values, codes, codes_at, sums, at, right, 4)
    else:
        add_to_rows(columns, start, count, values, codes, codes_at, sums, at, right, 8)
