"""``sparse_gather_dequantize`` in numba."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import float32, int64, njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.large_pages import empty_rows
from lit_gnncompress.kernels.cpu.row_chunks import in_chunks
from lit_gnncompress.kernels.layout import GAP

_NO_INDEX = torch.empty(0, dtype=torch.int64)
_NO_VALUES = torch.empty(0, dtype=torch.uint8)


def sparse_gather_dequantize(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    index: Tensor | None,
    first: Tensor | None,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.sparse_gather_dequantize`."""
    rows = rowptr.size(0) - 1 if index is None else index.size(0)
    out = empty_rows(rows, width)
    places = _NO_INDEX if index is None else index.long()
    tensors = [rowptr, columns, _NO_VALUES if values is None else values, places, lo, scale]
    arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
    begins = arrays[0] if first is None else first.contiguous().numpy()
    wrong = np.full(1, -1)
    in_chunks(_rows, rows, width, out.numpy(), *arrays, begins, bits, values is None, wrong)
    if wrong[0] >= 0:
        raise ValueError(
            f"rowptr, first or columns are wrong in row {wrong[0]}: pointers must not fall, "
            f"columns must lie below width={width}."
        )
    return out


@njit(cache=True, nogil=True)
def _rows(
    begin: int, end: int, out: Any, rowptr: Any, columns: Any, values: Any, index: Any, lo: Any,
    scale: Any, first: Any, bits: int, binary: bool, wrong: Any,
) -> None:  # fmt: skip
    gaps = columns.itemsize == 1
    width = out.shape[1]
    for target in range(begin, end):
        row = index[target] if len(index) > 0 else target
        low, step = lo[row if len(lo) > 1 else 0], scale[row if len(scale) > 1 else 0]
        out[target] = float32(0) * step + low
        start, stop, place = int64(rowptr[row]), int64(rowptr[row + 1]), int64(first[row])
        if not 0 <= start <= stop <= len(columns) or place < 0:
            wrong[0] = row
            continue
        cursor = 0
        for entry in range(start, stop):
            column = int64(columns[entry])
            if gaps:
                if column == GAP:
                    cursor += GAP
                    continue
                column += cursor
                cursor = column + 1
            code = 1 if binary else _code(values, place * bits, bits)
            place += 1
            if 0 <= column < width and code >= 0:
                out[target, column] = float32(code) * step + low
            else:
                wrong[0] = row


@njit(cache=True, nogil=True)
def _code(values: Any, bit: int, bits: int) -> int:
    byte = bit >> 3
    last = (bit + bits - 1) >> 3
    if last >= len(values):
        return -1
    pair = int64(values[byte]) | int64(values[last]) << 8
    return (pair >> (bit & 7)) & ((1 << bits) - 1)
