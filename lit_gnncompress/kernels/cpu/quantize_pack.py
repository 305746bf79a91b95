"""``quantize_pack`` in numba."""

from __future__ import annotations

from typing import Any

import torch
from numba import njit, uint32
from torch import Tensor

from lit_gnncompress.kernels.cpu.code_groups import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    quantize_row,
)
from lit_gnncompress.kernels.cpu.row_chunks import in_chunks
from lit_gnncompress.kernels.layout import row_bytes

_KINDS = {
    torch.float32: FLOAT32,
    torch.float16: FLOAT16,
    torch.bfloat16: BFLOAT16,
    torch.float64: FLOAT64,
}


def quantize_pack(x: Tensor, lo: Tensor, scale: Tensor, bits: int, seed: int) -> Tensor:
    """See :func:`lit_gnncompress.kernels.quantize_pack`; a negative seed rounds to nearest."""
    if x.stride(1) != 1:
        x = x.contiguous()
    rows, width = x.shape
    size = row_bytes(width, bits)
    packed = torch.empty(rows, size, dtype=torch.uint8)
    lo, scale = lo.detach().contiguous(), scale.detach().contiguous()
    in_chunks(
        _rows, rows, width, packed.data_ptr(), size, x.data_ptr(), x.stride(0) * x.element_size(),
        width, bits, _KINDS[x.dtype], lo.numpy(), scale.numpy(), seed,
    )  # fmt: skip
    return packed


@njit(cache=True, nogil=True)
def _rows(
    begin: int, end: int, target: int, size: int, source: int, stride: int, width: int, bits: int,
    kind: int, lo: Any, scale: Any, seed: int,
) -> None:  # fmt: skip
    seed_key = _mix(_mix(uint32(seed)) ^ uint32(seed >> 32))
    for row in range(begin, end):
        step = scale[row if len(scale) > 1 else 0]
        place = row * width
        quantize_row(
            target + row * size,
            source + row * stride,
            width,
            bits,
            kind,
            lo[row if len(lo) > 1 else 0],
            step,
            (1 << bits) - 1 if step > 0 else 0,
            seed >= 0,
            uint32(place),
            _mix(seed_key ^ uint32(place >> 32)),
            _mix(seed_key ^ uint32((place >> 32) + 1)),
        )


@njit(cache=True, nogil=True)
def _mix(h: Any) -> Any:
    h = uint32(h ^ (h >> uint32(16)))
    h = uint32(h * uint32(0x7FEB352D))
    h = uint32(h ^ (h >> uint32(15)))
    h = uint32(h * uint32(0x846CA68B))
    return uint32(h ^ (h >> uint32(16)))
