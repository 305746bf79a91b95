"""Sixteen floats at a time, for numba: loops over packed codes are slow without them.

A ``Vector`` is LLVM's ``<16 x float>``. Kernels carry a tuple of them, one for each group of 16
columns, through a loop over edges, and LLVM keeps them in registers. A CPU without AVX-512 gets
the same in narrower steps.

The helpers are intrinsics of the module, and take what shapes their code as integer literals, so
that numba's cache finds the kernels that use them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

LANES = 16
FLOAT = 32
"""In the place of ``bits``: the row is of floats."""

_FLOAT, _I1, _I8, _I16, _I32, _I64 = ir.FloatType(), *(ir.IntType(b) for b in (1, 8, 16, 32, 64))
_FLOATS = ir.VectorType(_FLOAT, LANES)
_MASK = ir.VectorType(_I1, LANES)


# Numba's own types do not know that numba passes the first argument.
_helper: Any = intrinsic(prefer_literal=True)


class Vector(types.Type):
    """Numba's type of 16 floats."""

    def __init__(self) -> None:
        super().__init__("Vector")


vector = Vector()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _FLOATS)


@_helper
def filled(typingctx: Any, groups: Any, value: Any) -> Any:
    """A tuple of ``groups`` vectors, every lane ``value``."""
    result = types.UniTuple(vector, groups.literal_value)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = _broadcast(builder, _as_float(context, builder, args[1], signature.args[1]))
        return cgutils.pack_array(builder, [value] * result.count)

    return result(groups, value), build


@_helper
def add_row(
    typingctx: Any, sums: Any, data: Any, at: Any, factor: Any, bits: Any, columns: Any
) -> Any:
    """``sums + factor * codes``, codes of the row whose first byte is ``data[at]``.

    ``data`` is a flat array. Of the row ``columns`` are there: they matter to floats, packed rows
    are filled up. Sums of 2, 4 and 8 bits are in another order, each times a power of 2: see
    :func:`_codes_in_place`, and :func:`store_row`, which undoes that.
    """
    result, width = sums, bits.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[1], args[1], args[2])
        factor = _broadcast(builder, args[3])
        values = cgutils.unpack_tuple(builder, args[0])
        if width == 1:
            for i, total in enumerate(values):
                added = builder.fadd(total, factor)
                values[i] = builder.select(_mask_of(builder, address, i), added, total)
        else:
            codes, _ = _codes_in_place(builder, address, len(values), width, args[5])
            values = [
                _multiply_add(builder, code, factor, total)
                for code, total in zip(codes, values, strict=True)
            ]
        return cgutils.pack_array(builder, values)

    return result(sums, data, types.int64, types.float32, bits, types.int64), build


@_helper
def add_row_by_column(
    typingctx: Any,
    sums: Any,
    data: Any,
    at: Any,
    factors: Any,
    first: Any,
    scale: Any,
    lo: Any,
    bits: Any,
    columns: Any,
) -> Any:
    """``sums + factors[first:] * (scale * codes + lo)``: a factor for each column."""
    result, width = sums, bits.literal_value

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[1], args[1], args[2])
        factors = _address(context, builder, signature.args[3], args[3], args[4], _FLOAT)
        scale, lo = _broadcast(builder, args[5]), _broadcast(builder, args[6])
        values = cgutils.unpack_tuple(builder, args[0])
        rows = _codes(builder, address, len(values), width, args[8])
        for i, (row, total) in enumerate(zip(rows, values, strict=True)):
            if width != FLOAT:
                row = builder.fadd(builder.fmul(row, scale), lo)
            each = builder.load(_at(builder, factors, 4 * LANES * i, _FLOATS), align=4)
            values[i] = _multiply_add(builder, row, each, total)
        return cgutils.pack_array(builder, values)

    integer, real = types.int64, types.float32
    return result(sums, data, integer, factors, integer, real, real, bits, integer), build


@_helper
def max_row(
    typingctx: Any,
    largest: Any,
    data: Any,
    at: Any,
    factors: Any,
    first: Any,
    scale: Any,
    lo: Any,
    bits: Any,
    columns: Any,
) -> Any:
    """``max(largest, factors[first:] * (codes * scale + lo))``; NaN is the largest of all.

    ``factors`` may be ``None``, 1 each: the result is then as that of :func:`add_row`. Every step
    is rounded as torch does, so that what is equal to the maximum can be told afterwards.
    """
    result, width = largest, bits.literal_value
    weighted = not isinstance(factors, types.NoneType)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[1], args[1], args[2])
        if weighted:
            each = _address(context, builder, signature.args[3], args[3], args[4], _FLOAT)
        scale, lo = _broadcast(builder, args[5]), _broadcast(builder, args[6])
        values = cgutils.unpack_tuple(builder, args[0])
        if weighted:
            rows, powers = _codes(builder, address, len(values), width, args[8]), [0] * len(values)
        else:
            rows, powers = _codes_in_place(builder, address, len(values), width, args[8])
        for i, (row, before) in enumerate(zip(rows, values, strict=True)):
            if width != FLOAT:
                least = builder.fmul(lo, _power(powers[i])) if powers[i] else lo
                row = builder.fadd(builder.fmul(row, scale), least)
            if weighted:
                factor = builder.load(_at(builder, each, 4 * LANES * i, _FLOATS), align=4)
                row = builder.fmul(row, factor)
            larger = builder.fcmp_ordered(">", row, before)
            if width == FLOAT or weighted:
                larger = builder.or_(larger, builder.fcmp_unordered("uno", row, row))
            values[i] = builder.select(larger, row, before)
        return cgutils.pack_array(builder, values)

    integer, real = types.int64, types.float32
    return result(largest, data, integer, factors, integer, real, real, bits, integer), build


@_helper
def store_row(
    typingctx: Any, out: Any, at: Any, values: Any, scale: Any, lo: Any, bits: Any, columns: Any
) -> Any:
    """Writes ``values * scale + lo`` to ``columns`` places of a flat float array, from ``at``.

    With ``bits`` the values are in the order of :func:`add_row`, with ``FLOAT`` in that of columns.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], args[0], args[1], _FLOAT)
        scale, lo = _broadcast(builder, args[3]), _broadcast(builder, args[4])
        values = cgutils.unpack_tuple(builder, args[2])
        for i, value in enumerate(_in_order(builder, values, bits.literal_value)):
            value = builder.fadd(builder.fmul(value, scale), lo)
            place = _at(builder, address, 4 * LANES * i, _FLOATS)
            if i < len(values) - 1:
                builder.store(value, place, align=4)
                continue
            mask = _first_lanes(builder, builder.sub(args[6], _I64(LANES * i)))
            operands = [value, place, _I32(4), mask]
            _call(builder, "llvm.masked.store.v16f32.p0", ir.VoidType(), operands)
        return context.get_dummy_value()

    integer, real = types.int64, types.float32
    return types.void(out, integer, values, real, real, bits, integer), build


@_helper
def prefetch(typingctx: Any, data: Any, at: Any, size: Any) -> Any:
    """Asks for ``size`` bytes of a flat array, from byte ``at``, before they are read.

    More than a line comes into the second cache: the first waits for few lines at a time.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], args[0], args[1])
        places = [*range(0, size.literal_value, 64), size.literal_value - 1]
        if size.literal_value <= 16:  # packed rows that short do not straddle lines
            places = [0]
        nearness = _I32(3 if size.literal_value <= 64 else 2)
        for place in places:
            line = builder.gep(address, [_I64(place)])
            _call(builder, "llvm.prefetch.p0", ir.VoidType(), [line, _I32(0), nearness, _I32(1)])
        return context.get_dummy_value()

    return types.void(data, types.int64, size), build


def _address(context: Any, builder: Any, kind: Any, array: Any, at: Any, unit: Any = _I8) -> Any:
    """Byte pointer to element ``at`` of a flat array of ``unit``."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(
        builder.gep(builder.bitcast(data, unit.as_pointer()), [at]), _I8.as_pointer()
    )


def _at(builder: Any, address: Any, offset: int, kind: Any) -> Any:
    return builder.bitcast(builder.gep(address, [_I64(offset)]), kind.as_pointer())


def _as_float(context: Any, builder: Any, value: Any, kind: Any) -> Any:
    return context.cast(builder, value, kind, types.float32)


def _broadcast(builder: Any, value: Any) -> Any:
    """Every lane the same."""
    kind = ir.VectorType(value.type, LANES)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(_I32, LANES), None))


def _constant(kind: Any, values: Any) -> Any:
    return ir.Constant(ir.VectorType(kind, len(values)), list(values))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    # Not `fma`: where the CPU has none, that is a call for each lane.
    return _call(builder, "llvm.fmuladd.v16f32", _FLOATS, [a, b, c])


def _call(builder: Any, name: str, result: Any, operands: Any) -> Any:
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)


def _first_lanes(builder: Any, count: Any) -> Any:
    lanes = _constant(_I64, range(LANES))
    return builder.icmp_signed("<", lanes, _broadcast(builder, count))


def _mask_of(builder: Any, address: Any, group: int) -> Any:
    """The 16 codes of one bit of a group."""
    return builder.bitcast(builder.load(_at(builder, address, 2 * group, _I16), align=1), _MASK)


def _codes(builder: Any, address: Any, groups: int, bits: int, columns: Any) -> list[Any]:
    """The codes of each group of 16 columns, as floats.

    Of the columns of a row of floats, ``columns`` are there.
    """
    if bits == FLOAT:
        return _floats(builder, address, groups, columns)
    return [_group_codes(builder, address, group, bits) for group in range(groups)]


def _floats(builder: Any, address: Any, groups: int, columns: Any) -> list[Any]:
    places = [_at(builder, address, 4 * LANES * group, _FLOATS) for group in range(groups)]
    mask = _first_lanes(builder, builder.sub(columns, _I64(LANES * (groups - 1))))
    operands = [places[-1], _I32(4), mask, ir.Constant(_FLOATS, None)]
    last = _call(builder, "llvm.masked.load.v16f32.p0", _FLOATS, operands)
    return [*(builder.load(place, align=4) for place in places[:-1]), last]


def _group_codes(builder: Any, address: Any, group: int, bits: int) -> Any:
    size = 2 * bits
    if bits == 8:
        return _as_floats(builder, _load(builder, address, size * group, _I8, LANES))
    if bits == 1:
        return builder.uitofp(_mask_of(builder, address, group), _FLOATS)
    if bits in (2, 4):  # 32 bits hold 16 or 8 codes: every lane gets those that it is part of
        each = 32 // bits
        words = _load(builder, address, size * group, _I32, bits // 2)
        words = _shuffle(builder, words, words, [lane // each for lane in range(LANES)])
        shifts = [lane % each * bits for lane in range(LANES)]
    else:  # a code straddles two bytes at most: every lane gets those two
        places = [lane * bits // 8 for lane in range(LANES)]
        pairs = [min(place + i, size - 1) for place in places for i in (0, 1)]
        loaded = _load(builder, address, size * group, _I8, size)
        pair = ir.VectorType(_I16, LANES)
        words = builder.bitcast(_shuffle(builder, loaded, loaded, pairs), pair)
        shifts = [lane * bits % 8 for lane in range(LANES)]
    unit = words.type.element
    words = builder.lshr(words, _constant(unit, shifts))
    return _as_floats(builder, builder.and_(words, _constant(unit, [2**bits - 1] * LANES)))


def _codes_in_place(
    builder: Any, address: Any, groups: int, bits: int, columns: Any
) -> tuple[list[Any], list[int]]:
    """As :func:`_codes`, but cheaper for 2, 4 and 8 bits; also which power of 2 each is times.

    Of a block of groups every lane gets a word with neighbouring codes in it. One vector is the
    first code of all words, the next vector the second. They are not shifted: as floats, codes
    that lie higher are exact as well. :func:`_in_order` undoes both, once for many edges.
    """
    if bits == FLOAT:
        return _floats(builder, address, groups, columns), [0] * groups
    vectors: list[Any] = []
    for first, size in _blocks(groups, bits):
        if size == 1:
            vectors.append(_group_codes(builder, address, first, bits))
            continue
        words = _load(builder, address, 2 * bits * first, ir.IntType(size * bits), LANES)
        if size * bits < 32:
            words = builder.zext(words, ir.VectorType(_I32, LANES))
        for power in _powers(size, bits)[:-1]:
            mask = _constant(_I32, [(2**bits - 1) << power] * LANES)
            vectors.append(builder.sitofp(builder.and_(words, mask), _FLOATS))
        last = builder.lshr(words, _constant(_I32, [(size - 1) * bits] * LANES))
        vectors.append(builder.sitofp(last, _FLOATS))
    return vectors, [p for _, size in _blocks(groups, bits) for p in _powers(size, bits)]


def _in_order(builder: Any, vectors: list[Any], bits: int) -> list[Any]:
    """Vectors of :func:`_codes_in_place`, a group of columns each, times 1."""
    ordered: list[Any] = []
    for first, size in _blocks(len(vectors), bits):
        block = vectors[first : first + size]
        for i, power in enumerate(_powers(size, bits)):
            block[i] = builder.fmul(block[i], _power(-power)) if power else block[i]
        # The bits that count vectors end below those that count words.
        ordered += zipped(builder, block, size.bit_length() - 1)
    return ordered


def _blocks(groups: int, bits: int) -> list[tuple[int, int]]:
    """First group and size of blocks whose codes fill 16 words of 32, 16 or 8 bits, or one each."""
    sizes = [word // bits for word in (32, 16, 8) if word > bits] if bits in (2, 4, 8) else []
    blocks, first = [], 0
    while first < groups:
        size = next((size for size in sizes if size <= groups - first), 1)
        blocks.append((first, size))
        first += size
    return blocks


def _powers(size: int, bits: int) -> list[int]:
    """Where the codes of a word of a block begin; the last one is shifted to 0."""
    return [*range(0, (size - 1) * bits, bits), 0]


def _power(exponent: int) -> Any:
    return _constant(_FLOAT, [2.0**exponent] * LANES)


def zipped(builder: Any, block: list[Any], times: int) -> list[Any]:
    """One half of 16-lane vectors zipped with the other, ``times`` times.

    Each time the highest bit of a number's place becomes the lowest.
    """
    half = len(block) // 2
    for _ in range(times):
        halves = zip(block[:half], block[half:], strict=True)
        block = [_zip(builder, *pair, begin) for pair in halves for begin in (0, LANES // 2)]
    return block


def _zip(builder: Any, a: Any, b: Any, begin: int) -> Any:
    """A lane of ``a``, then one of ``b``, from ``begin`` on."""
    return _shuffle(builder, a, b, [begin + i // 2 + i % 2 * LANES for i in range(LANES)])


def _load(builder: Any, address: Any, offset: int, unit: Any, count: int) -> Any:
    return builder.load(_at(builder, address, offset, ir.VectorType(unit, count)), align=1)


def _shuffle(builder: Any, a: Any, b: Any, lanes: Any) -> Any:
    return builder.shuffle_vector(a, b, _constant(_I32, lanes))


def _as_floats(builder: Any, codes: Any) -> Any:
    wide = ir.VectorType(_I32, LANES)
    return builder.sitofp(codes if codes.type == wide else builder.zext(codes, wide), _FLOATS)
