"""Triton: ``pack_bits``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda.encode import store_codes
from lit_gnncompress.kernels.cuda.tiles import block
from lit_gnncompress.kernels.layout import row_bytes


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """See :func:`lit_gnncompress.kernels.pack_bits`."""
    rows, width = codes.shape
    packed = codes.new_empty(rows, row_bytes(width, bits))
    if packed.numel() == 0:
        return packed
    columns = block(width, 16, 256)
    tall = 4096 // columns
    grid = (triton.cdiv(rows, tall), triton.cdiv(width, columns))
    with torch.cuda.device_of(codes):
        _kernel[grid](
            codes.contiguous(),
            packed,
            rows,
            width,
            packed.size(1),
            BITS=bits,
            BYTES=triton.next_power_of_2(bits),
            ROWS=tall,
            BLOCK=columns,
            enable_fp_fusion=False,
        )
    return packed


@triton.jit(do_not_specialize=["rows"])
def _kernel(
    codes: tl.tensor,
    packed: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    BITS: tl.constexpr,
    BYTES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * BLOCK
    column = first + tl.arange(0, BLOCK)[None, :]
    live = row < rows
    tile = tl.load(codes + row[:, None] * width + column, live[:, None] & (column < width), 0)
    store_codes(packed, tile, row, first, size, live, BITS, BYTES)
