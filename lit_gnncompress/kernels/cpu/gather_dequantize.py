"""``gather_dequantize`` in numba."""

from __future__ import annotations

from typing import Any

import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.code_groups import dequantize_row, prefetch
from lit_gnncompress.kernels.cpu.large_pages import empty_rows
from lit_gnncompress.kernels.cpu.row_chunks import in_chunks

_AHEAD = 16  # rows
_LINE = 64  # bytes
_NO_INDEX = torch.empty(0, dtype=torch.int64)


def gather_dequantize(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, index: Tensor | None
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.gather_dequantize`."""
    packed = packed.contiguous()
    rows = packed.size(0) if index is None else index.size(0)
    out = empty_rows(rows, width)
    places = _NO_INDEX if index is None else index.long().contiguous()
    lo, scale = lo.detach().contiguous(), scale.detach().contiguous()
    in_chunks(
        _rows, rows, width, out.data_ptr(), packed.data_ptr(), packed.size(1), width, bits,
        places.numpy(), lo.numpy(), scale.numpy(),
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True)
def _rows(
    begin: int, end: int, target: int, source: int, size: int, width: int, bits: int,
    index: Any, lo: Any, scale: Any,
) -> None:  # fmt: skip
    for row in range(begin, end):
        place = row
        if len(index) > 0:
            place = index[row]
            if row + _AHEAD < end:
                ahead = source + index[row + _AHEAD] * size
                for byte in range(0, size, _LINE):
                    prefetch(ahead + byte)
                if len(lo) > 1:
                    prefetch(lo.ctypes.data + 4 * index[row + _AHEAD])
                if len(scale) > 1:
                    prefetch(scale.ctypes.data + 4 * index[row + _AHEAD])
        dequantize_row(
            target + 4 * row * width,
            source + place * size,
            width,
            bits,
            lo[place if len(lo) > 1 else 0],
            scale[place if len(scale) > 1 else 0],
        )
