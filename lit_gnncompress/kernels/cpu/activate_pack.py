"""``activate_pack`` in numba: one pass over the rows, where torch would take five."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.activate_pack import ACTIVATIONS, empty_results
from lit_gnncompress.kernels.cpu.finished_rows import finish_and_pack
from lit_gnncompress.kernels.cpu.reduce_rows import array_or_none
from lit_gnncompress.kernels.cpu.row_chunks import in_chunks
from lit_gnncompress.kernels.cpu.vector import LANES

_CODES = 4  # that take as long to unpack as one to activate and pack


def activate_pack(
    x: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    bits: int,
    lo: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.activate_pack`."""
    rows, width = x.shape
    packed, row_lo, row_scale, finite = empty_results(x, rows, bits, lo)
    finite.fill_(True)
    in_chunks(
        _rows, rows, _CODES * width, x.detach().contiguous().numpy(), array_or_none(bias),
        array_or_none(residual), ACTIVATIONS.index(activation), bits, array_or_none(lo),
        array_or_none(scale), packed.data_ptr(), packed.size(1), row_lo.numpy(), row_scale.numpy(),
        finite.view(1).numpy(),
    )  # fmt: skip
    return packed, row_lo, row_scale, finite


@njit(cache=True, nogil=True)
def _rows(
    first: int, last: int, x: Any, bias: Any, residual: Any, activation: int, bits: int, lo: Any,
    scale: Any, packed: int, size: int, row_lo: Any, row_scale: Any, finite: Any,
) -> None:  # fmt: skip
    width = x.shape[1]
    values = np.zeros(-(-width // LANES) * LANES, np.float32)
    numbers, address = values.view(np.int32), values.ctypes.data
    ends = np.empty(2, np.float32)
    numbers_of_ends = ends.view(np.int32)
    for row in range(first, last):
        for column in range(width):
            values[column] = x[row, column]
        if not finish_and_pack(
            row, values, numbers, address, width, bias, residual, activation, bits, lo, scale,
            ends, numbers_of_ends, packed, size, row_lo, row_scale,
        ):  # fmt: skip
            finite[0] = False
