"""Numba: ``sparse_linear``, one row of the weight for each stored code."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.large_pages import empty_rows
from lit_gnncompress.kernels.cpu.sparse_products import multiply_row
from lit_gnncompress.kernels.cpu.sparse_rows import checked_arrays, codes_from, most_codes
from lit_gnncompress.kernels.cpu.threads import over_rows
from lit_gnncompress.kernels.cpu.tiles import LANES, aligned_floats
from lit_gnncompress.kernels.cpu.weight_panels import turn_panel

_ROWS = 32  # whose codes are unpacked together
_PANEL = 1 << 17  # weights of a panel: half an L2 cache


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
    out = empty_rows(rowptr.size(0) - 1, outputs)
    pointers, places, codes, before = checked_arrays(rowptr, columns, values, first, width)
    if not weight.numel():
        return out.zero_()
    lanes = panel_lanes(outputs)
    while lanes > LANES and lanes * width > _PANEL:
        lanes //= 2
    over_rows(
        _compiled(lanes // LANES),
        pointers,
        outputs,
        pointers,
        places,
        codes,
        before,
        lo.contiguous().numpy(),
        scale.contiguous().numpy(),
        bits,
        weight.numpy(),
        out.numpy(),
        chunks_per_thread=1,  # each lays out the weight for itself
    )
    return out


def panel_lanes(outputs: int) -> int:
    """Outputs that are summed together in registers."""
    return next((lanes for lanes in (16, 32, 64) if outputs <= lanes), 128)


def _loop(vectors: int) -> Callable[..., None]:
    lanes = LANES * vectors

    def kernel(begin, end, rowptr, columns, values, before, lo, scale, bits, weight, out):
        width = weight.shape[1]
        panel = aligned_floats(-(-width // LANES) * LANES * lanes)
        of_lo = np.empty(lanes, np.float32)
        most = 0 if values is None else most_codes(before, begin, end, _ROWS)
        codes = aligned_floats(most + 2 * LANES)
        flat, outputs = out.reshape(-1), out.shape[1]
        for first in range(0, outputs, lanes):
            turn_panel(weight, first, lanes, panel, of_lo)
            offset = 0
            for row in range(begin, end):
                if values is not None and (row - begin) % _ROWS == 0:
                    count = before[min(row + _ROWS, end)] - before[row]
                    offset = codes_from(values, before[row], count, bits, codes) - before[row]
                low = lo[row] if lo.size > 1 else lo[0]
                step = scale[row] if scale.size > 1 else scale[0]
                multiply_row(
                    columns, rowptr[row], rowptr[row + 1], values, codes, offset + before[row],
                    panel, step, low, of_lo, flat, row * outputs + first, outputs - first, vectors,
                )  # fmt: skip

    return kernel


@cache
def _compiled(vectors: int) -> Callable[..., None]:
    return njit(cache=True, nogil=True)(_loop(vectors))
