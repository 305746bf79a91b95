"""Triton: ``quantize_pack``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda.decode import load_range
from lit_gnncompress.kernels.cuda.encode import store_codes
from lit_gnncompress.kernels.cuda.tiles import block
from lit_gnncompress.kernels.cuda.uniform import fold_seed, uniform
from lit_gnncompress.kernels.layout import row_bytes


def quantize_pack(x: Tensor, lo: Tensor, scale: Tensor, bits: int, seed: int) -> Tensor:
    """See :func:`lit_gnncompress.kernels.quantize_pack`."""
    rows, width = x.shape
    packed = x.new_empty(rows, row_bytes(width, bits), dtype=torch.uint8)
    if packed.numel() == 0:
        return packed
    columns = block(width, 16, 256)
    tall = 2048 // columns
    grid = (triton.cdiv(rows, tall), triton.cdiv(width, columns))
    with torch.cuda.device_of(x):
        _kernel[grid](
            x.contiguous(),
            lo.contiguous(),
            scale.contiguous(),
            packed,
            rows,
            width,
            packed.size(1),
            fold_seed(seed),
            LO_BY_ROW=lo.size(0) > 1,
            SCALE_BY_ROW=scale.size(0) > 1,
            STOCHASTIC=seed >= 0,
            BITS=bits,
            BYTES=triton.next_power_of_2(bits),
            ROWS=tall,
            BLOCK=columns,
            enable_fp_fusion=False,
        )
    return packed


@triton.jit(do_not_specialize=["rows", "key"])
def _kernel(
    x: tl.tensor,
    lo: tl.tensor,
    scale: tl.tensor,
    packed: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    size: tl.tensor,
    key: tl.tensor,
    LO_BY_ROW: tl.constexpr,
    SCALE_BY_ROW: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    BITS: tl.constexpr,
    BYTES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    WIDE: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    LEVELS: tl.constexpr = 2**BITS - 1
    # Added and taken away again, this rounds to a whole number, halves to even.
    WHOLE: tl.constexpr = 2.0**52 if x.dtype.element_ty == tl.float64 else 2.0**23
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * BLOCK
    column = first + tl.arange(0, BLOCK)[None, :]
    live = (row < rows)[:, None]
    inside = live & (column < width)
    place = row[:, None] * width + column
    start = load_range(lo, row[:, None], live, LO_BY_ROW)
    above = tl.load(x + place, inside, 0.0).to(WIDE) - start.to(WIDE)
    step = tl.broadcast_to(load_range(scale, row[:, None], live, SCALE_BY_ROW), above.shape)
    # `/` of two fp32 tensors is a quick division, a unit in the last place off.
    steps = above / step.to(WIDE) if x.dtype.element_ty == tl.float64 else tl.div_rn(above, step)
    # Neither NaN nor a step of a range that is a point is above zero.
    steps = tl.where((steps > 0) & (step > 0) & inside, tl.minimum(steps, LEVELS), 0.0)
    if STOCHASTIC:
        below = tl.floor(steps)
        steps = below + (uniform(place, key) < steps - below).to(WIDE)
    else:
        steps = (steps + WHOLE) - WHOLE
    store_codes(packed, steps.to(tl.uint8), row, first, size, row < rows, BITS, BYTES)
