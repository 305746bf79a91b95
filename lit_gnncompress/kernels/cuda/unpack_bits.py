"""Triton: ``unpack_bits``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda.decode import as_words, load_codes
from lit_gnncompress.kernels.cuda.tiles import block


def unpack_bits(packed: Tensor, bits: int, width: int) -> Tensor:
    """See :func:`lit_gnncompress.kernels.unpack_bits`."""
    rows = packed.size(0)
    codes = packed.new_empty(rows, width)
    if codes.numel() == 0:
        return codes
    words = as_words(packed, bits)
    columns = block(width, 32, 256)
    tall = 4096 // columns
    grid = (triton.cdiv(rows, tall), triton.cdiv(width, columns))
    with torch.cuda.device_of(packed):
        _kernel[grid](
            words.data,
            codes,
            rows,
            width,
            words.stride,
            BITS=bits,
            WORD=words.size,
            ROWS=tall,
            BLOCK=columns,
            enable_fp_fusion=False,
        )
    return codes


@triton.jit(do_not_specialize=["rows"])
def _kernel(
    words: tl.tensor,
    codes: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    BITS: tl.constexpr,
    WORD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    first = tl.program_id(1) * BLOCK
    live = row < rows
    tile = load_codes(words, row * stride, first, width - first, live, BITS, WORD, BLOCK)
    column = first + tl.arange(0, BLOCK)[None, :]
    tl.store(codes + row * width + column, tile.to(tl.uint8), live & (column < width))
