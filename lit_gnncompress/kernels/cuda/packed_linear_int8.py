"""Triton: ``packed_linear_int8``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda.decode import as_words, load_codes, load_range
from lit_gnncompress.kernels.cuda.tiles import block, rows_of_linear
from lit_gnncompress.kernels.reference import packed_linear_int8 as reference

_WIDEST = 2**16


def packed_linear_int8(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    weight: Tensor,
    weight_scale: Tensor,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_linear_int8`.

    Sums are kept in 32 bits; wider rows, whose sums may need more, go the plain way.
    """
    if width > _WIDEST:
        return reference.packed_linear_int8(packed, lo, scale, bits, width, weight, weight_scale)
    rows, outputs = packed.size(0), weight.size(0)
    out = weight_scale.new_empty(rows, outputs)
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
            weight_scale.contiguous(),
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
            BLOCK=block(width, 32, 128),
            OUTPUTS=columns,
            enable_fp_fusion=False,
        )
    return out


@triton.jit(do_not_specialize=["rows"])
def _kernel(
    words: tl.tensor,
    lo: tl.tensor,
    scale: tl.tensor,
    weight: tl.tensor,
    weight_scale: tl.tensor,
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
) -> None:
    # Tensor cores take signed bytes: codes of 8 bits are moved down by 128, and the sums back up.
    DOWN: tl.constexpr = 128 if BITS == 8 else 0
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)[None, :]
    live = row < rows
    of_codes = tl.zeros((ROWS, OUTPUTS), tl.int32)
    of_lo = tl.zeros((OUTPUTS,), tl.int32)
    for first in range(0, width, BLOCK):
        codes = load_codes(words, row * stride, first, width - first, live, BITS, WORD, BLOCK)
        signed = (codes.to(tl.int32) - DOWN).to(tl.int8)
        column = first + tl.arange(0, BLOCK)[:, None]
        inside = (output < outputs) & (column < width)
        w = tl.load(weight + output.to(tl.int64) * width + column, inside, 0)
        of_codes = tl.dot(signed, w, of_codes, out_dtype=tl.int32)
        of_lo += tl.sum(w.to(tl.int32), 0)
    of_codes += DOWN * of_lo[None, :]
    values = load_range(scale, row, live, SCALE_BY_ROW) * of_codes.to(tl.float32)
    values += load_range(lo, row, live, LO_BY_ROW) * of_lo[None, :].to(tl.float32)
    values *= tl.load(weight_scale + output, output < outputs, 0.0)
    tl.store(out + row * outputs + output, values, live & (output < outputs))
