"""Triton: ``gather_dequantize``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda.decode import as_words, load_codes, load_range
from lit_gnncompress.kernels.cuda.tiles import block


def gather_dequantize(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, index: Tensor | None
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.gather_dequantize`."""
    rows = packed.size(0) if index is None else index.size(0)
    out = lo.new_empty(rows, width)
    if out.numel() == 0:
        return out
    words = as_words(packed, bits)
    columns = block(width, 32, 256)
    tall = 2048 // columns
    grid = (triton.cdiv(rows, tall), triton.cdiv(width, columns))
    with torch.cuda.device_of(packed):
        _kernel[grid](
            words.data,
            lo.contiguous(),
            scale.contiguous(),
            None if index is None else index.contiguous(),
            out,
            rows,
            width,
            words.stride,
            LO_BY_ROW=lo.size(0) > 1,
            SCALE_BY_ROW=scale.size(0) > 1,
            BITS=bits,
            WORD=words.size,
            ROWS=tall,
            BLOCK=columns,
            # A product rounded before it is added, as the reference does it.
            enable_fp_fusion=False,
        )
    return out


@triton.jit(do_not_specialize=["rows"])
def _kernel(
    words: tl.tensor,
    lo: tl.tensor,
    scale: tl.tensor,
    index: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    LO_BY_ROW: tl.constexpr,
    SCALE_BY_ROW: tl.constexpr,
    BITS: tl.constexpr,
    WORD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    first = tl.program_id(1) * BLOCK
    live = row < rows
    source = row if index is None else tl.load(index + row, live, 0).to(tl.int64)
    codes = load_codes(words, source * stride, first, width - first, live, BITS, WORD, BLOCK)
    values = codes.to(tl.float32) * load_range(scale, source, live, SCALE_BY_ROW)
    values += load_range(lo, source, live, LO_BY_ROW)
    column = first + tl.arange(0, BLOCK)[None, :]
    tl.store(out + row * width + column, values, live & (column < width))
