"""A sparse row times a dense matrix for numba, in one loop over what is stored."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from lit_gnncompress.kernels.cpu import tiles
from lit_gnncompress.kernels.cpu.tiles import LANES
from lit_gnncompress.kernels.layout import GAP


@tiles.emitted
def multiply_row(
    typingctx: Any,
    columns: Any,
    begin: Any,
    end: Any,
    stored: Any,
    codes: Any,
    codes_at: Any,
    matrix: Any,
    scale: Any,
    lo: Any,
    of_lo: Any,
    out: Any,
    out_at: Any,
    outputs: Any,
    vectors: Any,
) -> Any:
    """``out = scale · Σ_k codes[codes_at + k] · matrix[column k] + lo · of_lo``.

    The entries of the row are ``columns[begin:end]``: columns, or gaps if bytes, of which a column
    is worked out when it is used. All codes are 1 if ``stored`` is None. Rows of ``matrix`` have
    ``16·vectors`` floats, of which the first ``outputs`` are written.
    """
    index, number = types.int64, types.float32
    signature = types.void(
        columns, index, index, stored, codes, index, matrix, number, number, of_lo, out, index,
        index, vectors,
    )  # fmt: skip
    width = int(vectors.literal_value)
    gaps = columns.dtype == types.uint8

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def data(array: int) -> Any:
            return context.make_array(sig.args[array])(context, builder, args[array]).data

        entries, matrix, of_lo = (data(array) for array in (0, 6, 9))
        codes = None
        if sig.args[3] is not types.none:
            codes = tiles._pointer(context, builder, sig, args, 4, 5)
        one = ir.Constant(tiles._INDEX, 1)

        def with_row(column: Any, place: Any, sums: list[Any]) -> list[Any]:
            row = builder.mul(column, ir.Constant(tiles._INDEX, LANES * width))
            row = builder.gep(matrix, [row])
            places = [tiles._vector_at(builder, row, LANES * v) for v in range(width)]
            addends = [builder.load(place, align=4) for place in places]
            if codes is None:
                return [builder.fadd(s, a) for s, a in zip(sums, addends, strict=True)]
            code = builder.load(builder.gep(codes, [place]))
            code = tiles._broadcast(builder, code, tiles._FLOATS)
            fma = tiles._declare_fma(builder)
            return [builder.call(fma, [code, a, s]) for s, a in zip(sums, addends, strict=True)]

        def body(k: Any, carried: Any) -> list[Any]:
            cursor, place, *sums = carried
            entry = builder.load(builder.gep(entries, [builder.add(args[1], k)]))
            entry = builder.zext(entry, tiles._INDEX)
            if not gaps:
                return [cursor, builder.add(place, one), *with_row(entry, place, sums)]
            cursor = builder.add(cursor, entry)
            before = builder.block
            taken, after = (builder.append_basic_block(name) for name in ("code", "code.end"))
            far = builder.icmp_unsigned("==", entry, ir.Constant(tiles._INDEX, GAP))
            builder.cbranch(far, after, taken)  # rare, and foreseen
            builder.position_at_end(taken)
            new = [
                builder.add(cursor, one),
                builder.add(place, one),
                *with_row(cursor, place, sums),
            ]
            builder.branch(after)
            builder.position_at_end(after)
            joined = []
            for old, value in zip([cursor, place, *sums], new, strict=True):
                joined.append(builder.phi(value.type))
                joined[-1].add_incoming(old, before)
                joined[-1].add_incoming(value, taken)
            return joined

        nothing = [tiles._ZERO, tiles._ZERO, *[ir.Constant(tiles._FLOATS, None)] * width]
        _, _, *sums = tiles._loop(builder, builder.sub(args[2], args[1]), nothing, body)
        scale, lo = (tiles._broadcast(builder, args[i], tiles._FLOATS) for i in (7, 8))
        out = tiles._pointer(context, builder, sig, args, 10, 11)
        for v, total in enumerate(sums):
            offset = builder.load(tiles._vector_at(builder, of_lo, LANES * v), align=4)
            offset = builder.fmul(offset, lo)
            total = builder.call(tiles._declare_fma(builder), [total, scale, offset])
            left = builder.sub(args[12], ir.Constant(tiles._INDEX, LANES * v))
            tiles.store_first(builder, total, tiles._vector_at(builder, out, LANES * v), left)
        return context.get_dummy_value()

    return signature, generate
