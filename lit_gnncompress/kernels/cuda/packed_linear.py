"""Triton: ``packed_linear``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda.decode import as_words, load_codes, load_range
from lit_gnncompress.kernels.cuda.tiles import block, dot_precision, rows_of_linear


def packed_linear(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, weight: Tensor
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_linear`."""
    rows, outputs = packed.size(0), weight.size(0)
    out = weight.new_empty(rows, outputs)
    if out.numel() == 0 or width == 0:
        return out.zero_()
    words = as_words(packed, bits)
    columns = block(outputs, 16, 64)
    tall = rows_of_linear(rows, triton.cdiv(outputs, columns))
    grid = (triton.cdiv(rows, tall), triton.cdiv(outputs, columns))
    with torch.cuda.device_of(packed):
        _kernel[grid](
            words.data,
            lo.contiguous(),
            scale.contiguous(),
            weight.contiguous(),
            out,
            rows,
            width,
            outputs,
            words.stride,
            LO_BY_ROW=lo.size(0) > 1,
            SCALE_BY_ROW=scale.size(0) > 1,
            BITS=bits,
            WORD=words.size,
            ROWS=tall,
            BLOCK=block(width, 32, 64),
            OUTPUTS=columns,
            PRECISION=dot_precision(),
            enable_fp_fusion=True,
        )
    return out


@triton.jit(do_not_specialize=["rows"])
def _kernel(
    words: tl.tensor,
    lo: tl.tensor,
    scale: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    outputs: tl.tensor,
    stride: tl.tensor,
    LO_BY_ROW: tl.constexpr,
    SCALE_BY_ROW: tl.constexpr,
    BITS: tl.constexpr,
    WORD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    # The range goes in front of the sum: lo + scale * code, times w, is scale * (code * w) + lo * w
    # summed, and codes are exact in any precision that a product may have.
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)[None, :]
    live = row < rows
    of_codes = tl.zeros((ROWS, OUTPUTS), tl.float32)
    of_lo = tl.zeros((OUTPUTS,), tl.float32)
    for first in range(0, width, BLOCK):
        codes = load_codes(words, row * stride, first, width - first, live, BITS, WORD, BLOCK)
        column = first + tl.arange(0, BLOCK)[:, None]
        inside = (output < outputs) & (column < width)
        w = tl.load(weight + output.to(tl.int64) * width + column, inside, 0.0)
        of_codes = tl.dot(codes.to(tl.float32), w, of_codes, input_precision=PRECISION)
        of_lo += tl.sum(w, 0)
    values = load_range(scale, row, live, SCALE_BY_ROW) * of_codes
    values += load_range(lo, row, live, LO_BY_ROW) * of_lo[None, :]
    tl.store(out + row * outputs + output, values, live & (output < outputs))
