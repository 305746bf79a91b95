"""Vector instructions for rows of codes: 16 codes at a time, in LLVM's language.

Plain loops over bits are 5 to 20 times slower. Every function takes addresses, so that no vector
leaves it, and holds the loops for all bits: the compiled code is found again on disk (which it is
not for functions made at run time).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_intrinsic: Any = intrinsic  # called without its first argument, which no type tells

GROUP = 16
FLOAT32, FLOAT16, BFLOAT16, FLOAT64 = range(4)  # kinds of rows that are quantized

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
_LANES = list(range(GROUP))


@_intrinsic
def pack_row(typingctx: Any, target: Any, source: Any, width: Any, bits: Any) -> Any:
    """Packs ``width`` codes at ``source`` to ``target``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, source, width, bits = args

        def each(b: int) -> None:
            def group(number: Any, first: Any, mask: Any) -> None:
                codes = _load(builder, builder.add(source, first), _I8, mask)
                _store_codes(builder, builder.add(target, _times(builder, number, 2 * b)), codes, b)

            _for_groups(builder, width, group)

        _for_bits(builder, bits, each)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@_intrinsic
def unpack_row(typingctx: Any, target: Any, source: Any, width: Any, bits: Any) -> Any:
    """Unpacks ``width`` codes at ``source`` to ``target``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, source, width, bits = args

        def each(b: int) -> None:
            def group(number: Any, first: Any, mask: Any) -> None:
                codes = _load_codes(builder, builder.add(source, _times(builder, number, 2 * b)), b)
                _store(builder, builder.add(target, first), _resize(builder, codes, _I8), mask)

            _for_groups(builder, width, group)

        _for_bits(builder, bits, each)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@_intrinsic
def dequantize_row(
    typingctx: Any, target: Any, source: Any, width: Any, bits: Any, lo: Any, scale: Any
) -> Any:
    """Writes ``lo + scale * code`` as float32, rounded after each of the two operations."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, source, width, bits, lo, scale = args
        lo, scale = _broadcast(builder, lo), _broadcast(builder, scale)

        def value(codes: Any) -> Any:
            return builder.fadd(builder.fmul(codes, scale), lo)

        def each(b: int) -> None:
            # Of two values the one or the other is quicker taken than computed.
            two = [value(_splat(_FLOAT, code)) for code in (0.0, 1.0)]

            def group(number: Any, first: Any, mask: Any) -> None:
                codes = _load_codes(builder, builder.add(source, _times(builder, number, 2 * b)), b)
                if b == 1:
                    floats = builder.select(codes, two[1], two[0])
                else:
                    codes = _resize(builder, codes, _I32)
                    floats = value(builder.sitofp(codes, ir.VectorType(_FLOAT, GROUP)))
                _store(builder, builder.add(target, _times(builder, first, 4)), floats, mask)

            _for_groups(builder, width, group)

        _for_bits(builder, bits, each)
        return context.get_dummy_value()

    ints, floats = [types.intp] * 4, [types.float32] * 2
    return types.void(*ints, *floats), codegen


@_intrinsic
def quantize_row(
    typingctx: Any,
    target: Any,
    source: Any,
    width: Any,
    bits: Any,
    kind: Any,
    lo: Any,
    scale: Any,
    levels: Any,
    stochastic: Any,
    place: Any,
    key: Any,
    next_key: Any,
) -> Any:
    """Quantizes and packs ``width`` numbers of a ``kind``.

    Codes end at ``levels``. For stochastic rounding, ``place`` is the lower half of the row's first
    place, ``key`` the hash of the upper half, ``next_key`` that from where the lower one overflows.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        is_double = builder.icmp_signed("==", args[4], args[4].type(FLOAT64))
        with builder.if_else(is_double) as (doubles, floats):
            with doubles:
                _quantize(builder, _DOUBLE, *args)
            with floats:
                _quantize(builder, _FLOAT, *args)
        return context.get_dummy_value()

    ints, floats = [types.intp] * 5, [types.float32] * 3
    return types.void(*ints, *floats, types.boolean, *[types.uint32] * 3), codegen


@_intrinsic
def prefetch(typingctx: Any, address: Any) -> Any:
    """Asks for the cache line at ``address``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I8.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


def _quantize(
    builder: Any,
    dtype: Any,
    target: Any,
    source: Any,
    width: Any,
    bits: Any,
    kind: Any,
    lo: Any,
    scale: Any,
    levels: Any,
    stochastic: Any,
    place: Any,
    key: Any,
    next_key: Any,
) -> None:
    vector = ir.VectorType(dtype, GROUP)
    ends = [
        _broadcast(builder, builder.fpext(end, dtype) if dtype == _DOUBLE else end)
        for end in (lo, scale, levels)
    ]
    place, key, next_key = (_broadcast(builder, each) for each in (place, key, next_key))
    zero = _splat(dtype, 0.0)

    def group(number: Any, first: Any, mask: Any) -> None:
        if dtype == _DOUBLE:
            x = _load(builder, builder.add(source, _times(builder, first, 8)), _DOUBLE, mask)
        else:
            x = _load_floats(builder, source, first, kind, mask)
        steps = builder.fdiv(builder.fsub(x, ends[0]), ends[1])
        with builder.if_else(stochastic) as (chance, nearest):
            with chance:
                below = _call(builder, "floor", steps)
                lanes = _broadcast(builder, builder.trunc(first, _I32))
                lanes = builder.add(lanes, ir.Constant(ir.VectorType(_I32, GROUP), _LANES))
                low = builder.add(place, lanes)
                keys = builder.select(builder.icmp_unsigned("<", low, place), next_key, key)
                uniform = _uniform(builder, builder.xor(low, keys))
                uniform = builder.fpext(uniform, vector) if dtype == _DOUBLE else uniform
                up = builder.fcmp_ordered("<", uniform, builder.fsub(steps, below))
                by_chance = builder.fadd(below, builder.uitofp(up, vector))
                after_chance = builder.block
            with nearest:
                to_nearest = _call(builder, "nearbyint", steps)
                after_nearest = builder.block
        rounded = builder.phi(vector)
        rounded.add_incoming(by_chance, after_chance)
        rounded.add_incoming(to_nearest, after_nearest)
        # NaN is not above zero.
        rounded = builder.select(builder.fcmp_ordered(">", rounded, zero), rounded, zero)
        rounded = builder.select(builder.fcmp_ordered("<", rounded, ends[2]), rounded, ends[2])
        codes = _resize(builder, builder.fptosi(rounded, ir.VectorType(_I32, GROUP)), _I8)
        if mask is not None:
            codes = builder.select(mask, codes, _splat(_I8, 0))

        def each(b: int) -> None:
            _store_codes(builder, builder.add(target, _times(builder, number, 2 * b)), codes, b)

        _for_bits(builder, bits, each)

    _for_groups(builder, width, group)


def _uniform(builder: Any, hashed: Any) -> Any:
    """The hash of ``reference/quantize_pack.py``, as numbers from [0, 1)."""

    def fold(shift: int) -> Any:
        return builder.xor(hashed, builder.lshr(hashed, _splat(_I32, shift)))

    hashed = fold(16)
    hashed = builder.mul(hashed, _splat(_I32, 0x7FEB352D))
    hashed = fold(15)
    hashed = builder.mul(hashed, _splat(_I32, 0x846CA68B))
    hashed = fold(16)
    hashed = builder.lshr(hashed, _splat(_I32, 8))
    floats = builder.sitofp(hashed, ir.VectorType(_FLOAT, GROUP))
    return builder.fmul(floats, _splat(_FLOAT, 2.0**-24))


def _load_floats(builder: Any, source: Any, first: Any, kind: Any, mask: Any) -> Any:
    """16 numbers of any kind but doubles, as float32."""
    vector = ir.VectorType(_FLOAT, GROUP)
    done = builder.append_basic_block("loaded")
    blocks = {each: builder.append_basic_block("load") for each in (FLOAT16, BFLOAT16, FLOAT32)}
    switch = builder.switch(kind, blocks[FLOAT32])
    incoming = []
    for each, block in blocks.items():
        if each != FLOAT32:
            switch.add_case(kind.type(each), block)
        builder.position_at_end(block)
        size = 4 if each == FLOAT32 else 2
        address = builder.add(source, _times(builder, first, size))
        if each == FLOAT32:
            x = _load(builder, address, _FLOAT, mask)
        elif each == FLOAT16:
            halves = _load(builder, address, _I16, mask)
            x = _half_to_float(builder, halves)
        else:
            upper = _resize(builder, _load(builder, address, _I16, mask), _I32)
            x = builder.bitcast(builder.shl(upper, _splat(_I32, 16)), vector)
        incoming.append((x, builder.block))
        builder.branch(done)
    builder.position_at_end(done)
    floats = builder.phi(vector)
    for x, block in incoming:
        floats.add_incoming(x, block)
    return floats


def _half_to_float(builder: Any, halves: Any) -> Any:
    """By integers: a CPU without the instruction has no function for it in numba either."""
    vector = ir.VectorType(_FLOAT, GROUP)
    wide = _resize(builder, halves, _I32)
    rest = builder.shl(builder.and_(wide, _splat(_I32, 0x7FFF)), _splat(_I32, 13))
    # The exponents differ by 112, infinity and NaN have the highest one.
    x = builder.bitcast(
        builder.fmul(builder.bitcast(rest, vector), _splat(_FLOAT, 2.0**112)), rest.type
    )
    special = builder.icmp_unsigned(">=", rest, _splat(_I32, 0x7C00 << 13))
    x = builder.or_(x, builder.select(special, _splat(_I32, 0x7F800000), _splat(_I32, 0)))
    sign = builder.shl(builder.and_(wide, _splat(_I32, 0x8000)), _splat(_I32, 16))
    return builder.bitcast(builder.or_(x, sign), vector)


def _load_codes(builder: Any, address: Any, bits: int) -> Any:
    """16 codes of ``bits``; as lanes of one bit, or of at least as many as needed."""
    if bits == 1:
        return builder.bitcast(_load_scalar(builder, address, 16), ir.VectorType(_I1, GROUP))
    if bits == 8:
        return _load(builder, address, _I8, None)
    whole = builder.zext(_load_scalar(builder, address, 16 * bits), ir.IntType(128))
    source = builder.bitcast(whole, ir.VectorType(_I8, GROUP))
    # The two bytes that hold a code, in a lane of 16 bits.
    places = [lane * bits // 8 + half for lane in _LANES for half in (0, 1)]
    places = [min(place, GROUP - 1) for place in places]
    pairs = builder.shuffle_vector(
        source, source, ir.Constant(ir.VectorType(_I32, 2 * GROUP), places)
    )
    lanes = builder.bitcast(pairs, ir.VectorType(_I16, GROUP))
    shifts = ir.Constant(ir.VectorType(_I16, GROUP), [lane * bits % 8 for lane in _LANES])
    return builder.and_(builder.lshr(lanes, shifts), _splat(_I16, 2**bits - 1))


def _store_codes(builder: Any, address: Any, codes: Any, bits: int) -> None:
    """Packs 16 codes, in lanes of 8 bits: neighbours are joined, then pairs, then fours."""
    if bits == 8:
        return _store(builder, address, codes, None)
    if bits == 1:
        whole = builder.bitcast(builder.trunc(codes, ir.VectorType(_I1, GROUP)), _I16)
        return _store_scalar(builder, address, whole)
    for step in range(3):
        half = 8 << step
        lane = ir.IntType(2 * half)
        codes = builder.bitcast(codes, ir.VectorType(lane, GROUP >> step + 1))
        low = builder.and_(codes, _splat(lane, 2**half - 1, GROUP >> step + 1))
        high = builder.lshr(codes, _splat(lane, half, GROUP >> step + 1))
        high = builder.shl(high, _splat(lane, bits << step, GROUP >> step + 1))
        codes = builder.or_(low, high)
    wide = ir.IntType(128)
    low, high = (builder.zext(builder.extract_element(codes, _I32(i)), wide) for i in (0, 1))
    whole = builder.or_(low, builder.shl(high, wide(8 * bits)))
    return _store_scalar(builder, address, builder.trunc(whole, ir.IntType(16 * bits)))


def _for_groups(builder: Any, width: Any, group: Callable[[Any, Any, Any], None]) -> None:
    """Calls ``group`` with its number, its first code, and the lanes of what is not whole."""
    whole = builder.lshr(width, width.type(4))
    with cgutils.for_range(builder, whole) as loop:
        group(loop.index, builder.shl(loop.index, width.type(4)), None)
    rest = builder.and_(width, width.type(15))
    with builder.if_then(builder.icmp_signed(">", rest, width.type(0))):
        rest = _broadcast(builder, builder.trunc(rest, _I8))
        lanes = ir.Constant(ir.VectorType(_I8, GROUP), _LANES)
        mask = builder.icmp_unsigned("<", lanes, rest)
        group(whole, builder.shl(whole, width.type(4)), mask)


def _for_bits(builder: Any, bits: Any, each: Callable[[int], None]) -> None:
    """Code for 1 to 8 bits, of which one runs."""
    done = builder.append_basic_block("packed")
    switch = builder.switch(bits, done)
    for b in range(1, 9):
        block = builder.append_basic_block(f"bits{b}")
        switch.add_case(bits.type(b), block)
        builder.position_at_end(block)
        each(b)
        builder.branch(done)
    builder.position_at_end(done)


def _load(builder: Any, address: Any, lane: Any, mask: Any) -> Any:
    vector = ir.VectorType(lane, GROUP)
    pointer = builder.inttoptr(address, vector.as_pointer())
    if mask is None:
        return builder.load(pointer, align=1)
    kind = ir.FunctionType(vector, [pointer.type, _I32, mask.type, vector])
    name = f"llvm.masked.load.v16{_short(lane)}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [pointer, _I32(1), mask, ir.Constant(vector, None)])


def _store(builder: Any, address: Any, value: Any, mask: Any) -> None:
    pointer = builder.inttoptr(address, value.type.as_pointer())
    if mask is None:
        builder.store(value, pointer, align=1)
        return
    kind = ir.FunctionType(ir.VoidType(), [value.type, pointer.type, _I32, mask.type])
    name = f"llvm.masked.store.v16{_short(value.type.element)}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.call(function, [value, pointer, _I32(1), mask])


def _load_scalar(builder: Any, address: Any, bits: int) -> Any:
    pointer = builder.inttoptr(address, ir.IntType(bits).as_pointer())
    return builder.load(pointer, align=1)


def _store_scalar(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=1)


def _call(builder: Any, name: str, x: Any) -> Any:
    name = f"llvm.{name}.v16{_short(x.type.element)}"
    kind = ir.FunctionType(x.type, [x.type])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [x])


def _short(lane: Any) -> str:
    return {_FLOAT: "f32", _DOUBLE: "f64"}.get(lane) or f"i{lane.width}"


def _resize(builder: Any, codes: Any, lane: Any) -> Any:
    """Unsigned lanes, made wider or narrower."""
    if codes.type.element.width == lane.width:
        return codes
    narrow = codes.type.element.width > lane.width
    return (builder.trunc if narrow else builder.zext)(codes, ir.VectorType(lane, GROUP))


def _times(builder: Any, number: Any, factor: int) -> Any:
    return builder.mul(number, number.type(factor))


def _splat(lane: Any, value: float, lanes: int = GROUP) -> Any:
    return ir.Constant(ir.VectorType(lane, lanes), [value] * lanes)


def _broadcast(builder: Any, scalar: Any) -> Any:
    vector = ir.VectorType(scalar.type, GROUP)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, _I32(0))
    zeros = ir.Constant(ir.VectorType(_I32, GROUP), [0] * GROUP)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)
