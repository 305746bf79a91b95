"""``unpack_bits`` in numba."""

from __future__ import annotations

import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.code_groups import unpack_row
from lit_gnncompress.kernels.cpu.row_chunks import in_chunks


def unpack_bits(packed: Tensor, bits: int, width: int) -> Tensor:
    """See :func:`lit_gnncompress.kernels.unpack_bits`."""
    packed = packed.contiguous()
    rows, size = packed.shape
    codes = torch.empty(rows, width, dtype=torch.uint8)
    in_chunks(_rows, rows, width, codes.data_ptr(), width, packed.data_ptr(), size, bits)
    return codes


@njit(cache=True, nogil=True)
def _rows(begin: int, end: int, target: int, width: int, source: int, size: int, bits: int) -> None:
    for row in range(begin, end):
        unpack_row(target + row * width, source + row * size, width, bits)
