"""Triton: ``packed_linear_backward``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda.decode import as_words, load_codes, load_range
from lit_gnncompress.kernels.cuda.tiles import PROGRAMS, block, dot_precision

_TALL = 32


def packed_linear_backward(
    packed: Tensor, lo: Tensor, scale: Tensor, bits: int, width: int, grad: Tensor
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.packed_linear_backward.packed_linear_backward`.

    The result is small and the sum over the rows is long: programs share the rows of a tile, and
    what they found is added up in the end, always in the same order.
    """
    rows, outputs = grad.shape
    if outputs == 0 or width == 0 or rows == 0:
        return grad.new_zeros(outputs, width)
    words = as_words(packed, bits)
    high, columns = block(outputs, 16, 64), block(width, 32, 64)
    tiles = triton.cdiv(outputs, high), triton.cdiv(width, columns)
    shares = max(1, min(triton.cdiv(rows, _TALL), PROGRAMS // (tiles[0] * tiles[1])))
    share = triton.cdiv(triton.cdiv(rows, shares), _TALL) * _TALL
    shares = triton.cdiv(rows, share)
    parts = grad.new_empty(shares, outputs, width)
    with torch.cuda.device_of(packed):
        _kernel[(*tiles, shares)](
            words.data,
            lo.contiguous(),
            scale.contiguous(),
            grad.contiguous(),
            parts,
            rows,
            width,
            outputs,
            words.stride,
            share,
            LO_BY_ROW=lo.size(0) > 1,
            SCALE_BY_ROW=scale.size(0) > 1,
            BITS=bits,
            WORD=words.size,
            ROWS=_TALL,
            BLOCK=columns,
            OUTPUTS=high,
            PRECISION=dot_precision(),
            enable_fp_fusion=True,
        )
    return parts[0] if shares == 1 else parts.sum(0)


@triton.jit(do_not_specialize=["rows"])
def _kernel(
    words: tl.tensor,
    lo: tl.tensor,
    scale: tl.tensor,
    grad: tl.tensor,
    parts: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    outputs: tl.tensor,
    stride: tl.tensor,
    share: tl.tensor,
    LO_BY_ROW: tl.constexpr,
    SCALE_BY_ROW: tl.constexpr,
    BITS: tl.constexpr,
    WORD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    OUTPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)[:, None]
    first = tl.program_id(1) * BLOCK
    start = tl.program_id(2).to(tl.int64) * share
    end = tl.minimum(start + share, rows)
    sums = tl.zeros((OUTPUTS, BLOCK), tl.float32)
    for top in range(start, end, ROWS):
        row = top + tl.arange(0, ROWS)[:, None]
        live = row < end
        codes = load_codes(words, row * stride, first, width - first, live, BITS, WORD, BLOCK)
        x = codes.to(tl.float32) * load_range(scale, row, live, SCALE_BY_ROW)
        x += load_range(lo, row, live, LO_BY_ROW)
        beside = top + tl.arange(0, ROWS)[None, :]
        inside = (output < outputs) & (beside < end)
        g = tl.load(grad + beside * outputs + output, inside, 0.0)
        sums = tl.dot(g, x, sums, input_precision=PRECISION)
    column = first + tl.arange(0, BLOCK)[None, :]
    at = (tl.program_id(2).to(tl.int64) * outputs + output) * width + column
    tl.store(parts + at, sums, (output < outputs) & (column < width))
