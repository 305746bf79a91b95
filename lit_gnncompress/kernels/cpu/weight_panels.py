"""Weights as products with sparse rows read them: the outputs of a column beside each other."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types

from lit_gnncompress.kernels.cpu import tiles
from lit_gnncompress.kernels.cpu.tiles import LANES
from lit_gnncompress.kernels.cpu.vector import zipped


@njit(cache=True, nogil=True)
def turn_panel(weight, first, lanes, panel, sums):
    """Lays out ``lanes`` outputs of a weight ``(O, F)``, from output ``first`` on.

    ``panel`` becomes ``(F rounded up to 16, lanes)``, flat; ``sums`` each output's sum of weights.
    Outputs that are not there have zeros.
    """
    outputs, width = weight.shape
    flat = weight.reshape(-1)
    sums[:lanes] = 0
    for lane in range(0, lanes, LANES):
        rows = max(0, min(LANES, outputs - first - lane))
        for column in range(0, width, LANES):
            source, target = (first + lane) * width + column, column * lanes + lane
            columns = min(LANES, width - column)
            _turn_16(flat, source, width, rows, columns, panel, target, lanes, sums, lane)


@tiles.emitted
def _turn_16(
    typingctx: Any,
    source: Any,
    source_at: Any,
    source_step: Any,
    rows: Any,
    columns: Any,
    out: Any,
    out_at: Any,
    out_step: Any,
    sums: Any,
    sums_at: Any,
) -> Any:
    """Transposes 16 × 16 floats, of which ``rows`` × ``columns`` are there, and adds up rows."""
    index = types.int64
    signature = types.void(source, *[index] * 4, out, index, index, sums, index)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def at(pointer: Any, row: int, step: Any) -> Any:
            place = builder.gep(pointer, [builder.mul(step, ir.Constant(tiles._INDEX, row))])
            return tiles._vector_at(builder, place, 0)

        source = tiles._pointer(context, builder, sig, args, 0, 1)
        block = []
        for row in range(LANES):
            there = builder.icmp_signed("<", ir.Constant(tiles._INDEX, row), args[3])
            count = builder.select(there, args[4], tiles._ZERO)
            place = at(source, row, args[2])
            block.append(tiles.load_first(builder, place, count))
        block = zipped(builder, block, 4)  # swaps the bits of rows and of columns
        out = tiles._pointer(context, builder, sig, args, 5, 6)
        for row, vector in enumerate(block):
            builder.store(vector, at(out, row, args[7]), align=4)
        while len(block) > 1:
            block = [builder.fadd(*pair) for pair in zip(block[::2], block[1::2], strict=True)]
        total = at(tiles._pointer(context, builder, sig, args, 8, 9), 0, tiles._ZERO)
        builder.store(builder.fadd(builder.load(total, align=4), block[0]), total, align=4)
        return context.get_dummy_value()

    return signature, generate
