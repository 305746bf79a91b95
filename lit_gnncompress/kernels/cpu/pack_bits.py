"""``pack_bits`` in numba."""

from __future__ import annotations

import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.code_groups import pack_row
from lit_gnncompress.kernels.cpu.row_chunks import in_chunks
from lit_gnncompress.kernels.layout import row_bytes


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """See :func:`lit_gnncompress.kernels.pack_bits`."""
    codes = codes.contiguous()
    rows, width = codes.shape
    size = row_bytes(width, bits)
    packed = torch.empty(rows, size, dtype=torch.uint8)
    in_chunks(_rows, rows, width, packed.data_ptr(), size, codes.data_ptr(), width, bits)
    return packed


@njit(cache=True, nogil=True)
def _rows(begin: int, end: int, target: int, size: int, source: int, width: int, bits: int) -> None:
    for row in range(begin, end):
        pack_row(target + row * size, source + row * width, width, bits)
