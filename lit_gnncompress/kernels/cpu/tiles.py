"""Vector code of the linear layers: products of small tiles, look-up, and unpacking to a scratch.

Tiles keep their sums in registers over the whole depth of a product. Vectors have 16 floats; where
a CPU has shorter ones, LLVM splits them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, njit, types
from numba.core.extending import intrinsic

LANES = 16
_CHAINS = 4
_BYTE, _HALF, _WORD, _INDEX = (ir.IntType(size) for size in (8, 16, 32, 64))
_FLOAT = ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)
_WORDS = ir.VectorType(_WORD, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_ZERO = ir.Constant(_INDEX, 0)


def emitted(function: Callable[..., Any]) -> Any:
    """Numba's ``intrinsic``, for calls that mypy cannot follow."""
    return intrinsic(prefer_literal=True)(function)


@emitted
def fma_tile(
    typingctx: Any,
    a: Any,
    a_at: Any,
    a_step: Any,
    b: Any,
    b_at: Any,
    depth: Any,
    out: Any,
    out_at: Any,
    out_step: Any,
    a_row: Any,
    rows: Any,
    vectors: Any,
) -> Any:
    """``out[i, :] += Σ_k a[k·a_step + i·a_row] · b[k, :]`` for ``rows`` × ``16·vectors`` floats.

    ``b`` is contiguous in ``k``; ``a_row``, ``rows`` and ``vectors`` are literals, so that
    addresses are constants and the sums stay in registers.
    """
    constants = (a_row, rows, vectors)
    index = types.int64
    signature = types.void(a, index, index, b, index, index, out, index, index, *constants)
    stride, height, width = _literals(*constants)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a_ptr = _pointer(context, builder, sig, args, 0, 1)
        b_ptr = _pointer(context, builder, sig, args, 3, 4)
        out_ptr = _pointer(context, builder, sig, args, 6, 7)
        fma = _declare_fma(builder)
        places = []
        for i in range(height):
            row = builder.gep(out_ptr, [builder.mul(args[8], ir.Constant(_INDEX, i))])
            places += [_vector_at(builder, row, LANES * v) for v in range(width)]
        sums = [builder.load(place, align=4) for place in places]

        def body(k: Any, sums: Sequence[Any]) -> list[Any]:
            a_k = builder.gep(a_ptr, [builder.mul(k, args[2])])
            b_k = builder.gep(b_ptr, [builder.mul(k, ir.Constant(_INDEX, LANES * width))])
            right = [
                builder.load(_vector_at(builder, b_k, LANES * v), align=4) for v in range(width)
            ]
            new = []
            for i in range(height):
                left = builder.load(builder.gep(a_k, [ir.Constant(_INDEX, i * stride)]), align=4)
                left = _broadcast(builder, left, _FLOATS)
                new += [
                    builder.call(fma, [left, right[v], sums[i * width + v]]) for v in range(width)
                ]
            return new

        for place, total in zip(places, _loop(builder, args[5], sums, body), strict=True):
            builder.store(total, place, align=4)
        return context.get_dummy_value()

    return signature, generate


@emitted
def int8_tile(
    typingctx: Any,
    a: Any,
    a_at: Any,
    b: Any,
    b_at: Any,
    depth: Any,
    out: Any,
    out_at: Any,
    a_row: Any,
    rows: Any,
    vectors: Any,
) -> Any:
    """``out[i, :] += Σ_k a[i·a_row + k] · b[k, :]`` of uint8 × int8 in int32.

    Four columns at a time: ``depth`` counts those, and ``b`` is ``(depth, 16·vectors, 4)``.
    """
    constants = (a_row, rows, vectors)
    index = types.int64
    signature = types.void(a, index, b, index, index, out, index, *constants)
    stride, height, width = _literals(*constants)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a_ptr = _pointer(context, builder, sig, args, 0, 1)
        b_ptr = _pointer(context, builder, sig, args, 2, 3)
        out_ptr = _pointer(context, builder, sig, args, 5, 6)
        dot = _dot_of_fours(builder)

        def body(k: Any, sums: Sequence[Any]) -> list[Any]:
            a_k = builder.gep(a_ptr, [builder.mul(k, ir.Constant(_INDEX, 4))])
            b_k = builder.gep(b_ptr, [builder.mul(k, ir.Constant(_INDEX, 4 * LANES * width))])
            right = []
            for v in range(width):
                place = builder.gep(b_k, [ir.Constant(_INDEX, 4 * LANES * v)])
                right.append(builder.load(builder.bitcast(place, _WORDS.as_pointer()), align=4))
            new = []
            for i in range(height):
                place = builder.gep(a_k, [ir.Constant(_INDEX, i * stride)])
                four = builder.load(builder.bitcast(place, _WORD.as_pointer()), align=4)
                left = _broadcast(builder, four, _WORDS)
                new += [dot(sums[i * width + v], left, right[v]) for v in range(width)]
            return new

        places = [
            _vector_at(builder, out_ptr, LANES * tile, _WORDS) for tile in range(height * width)
        ]
        sums = [builder.load(place, align=4) for place in places]
        for place, total in zip(places, _loop(builder, args[4], sums, body), strict=True):
            builder.store(total, place, align=4)
        return context.get_dummy_value()

    return signature, generate


@emitted
def look_up(
    typingctx: Any, packed: Any, at: Any, table: Any, out: Any, out_at: Any, nibbles: Any
) -> Any:
    """Adds ``table[p, nibble p]`` to 16 floats, for the next nibbles of a packed row.

    ``table`` is ``(nibbles, 16, 16)``; ``nibbles`` is the literal 4 or 16, so that one load takes
    all of them.
    """
    index = types.int64
    signature = types.void(packed, index, table, out, index, nibbles)
    (count,) = _literals(nibbles)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        packed_ptr = _pointer(context, builder, sig, args, 0, 1)
        table_ptr = context.make_array(sig.args[2])(context, builder, args[2]).data
        place = _vector_at(builder, _pointer(context, builder, sig, args, 3, 4), 0)
        integer = ir.IntType(4 * count)
        codes = builder.load(builder.bitcast(packed_ptr, integer.as_pointer()), align=1)
        codes = builder.zext(codes, _INDEX) if count < 16 else codes
        chains = [builder.load(place, align=4)]
        for p in range(count):
            nibble = builder.lshr(codes, ir.Constant(_INDEX, 4 * p))
            nibble = builder.and_(nibble, ir.Constant(_INDEX, 15))
            entry = builder.gep(table_ptr, [builder.mul(nibble, ir.Constant(_INDEX, LANES))])
            entry = _vector_at(builder, entry, 16 * LANES * p)
            found = builder.load(entry, align=4)
            if p < _CHAINS - 1:
                chains.append(found)
            else:
                chains[p % _CHAINS] = builder.fadd(chains[p % _CHAINS], found)
        while len(chains) > 1:
            chains = [builder.fadd(*pair) for pair in zip(chains[::2], chains[1::2], strict=True)]
        builder.store(chains[0], place, align=4)
        return context.get_dummy_value()

    return signature, generate


@emitted
def fill_table(typingctx: Any, weight: Any, at: Any, table: Any, table_at: Any, bits: Any) -> Any:
    """The 16 sums of 16-float rows of ``weight`` that the codes in a nibble can call for."""
    signature = types.void(weight, types.int64, table, types.int64, bits)
    (width,) = _literals(bits)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        weight_ptr = _pointer(context, builder, sig, args, 0, 1)
        table_ptr = _pointer(context, builder, sig, args, 2, 3)
        entries = [ir.Constant(_FLOATS, None)]
        for column in range(4 // width):
            row = builder.load(_vector_at(builder, weight_ptr, LANES * column), align=4)
            multiples = [row]
            for _ in range(2, 2**width):
                multiples.append(builder.fadd(multiples[-1], row))
            entries += [builder.fadd(entry, m) for m in multiples for entry in list(entries)]
        for place, entry in enumerate(entries):
            builder.store(entry, _vector_at(builder, table_ptr, LANES * place), align=4)
        return context.get_dummy_value()

    return signature, generate


@emitted
def _finish_16(
    typingctx: Any,
    sums: Any,
    at: Any,
    step: Any,
    factor: Any,
    offset: Any,
    offset_at: Any,
    low: Any,
    out: Any,
    out_at: Any,
) -> Any:
    """``out = step · factor · sums + low · offset`` for 16 floats; no ``factor`` if it is None."""
    index, number = types.int64, types.float32
    signature = types.void(sums, index, number, factor, offset, index, number, out, index)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def load(array: int, at: int, kind: Any = _FLOATS) -> Any:
            pointer = _pointer(context, builder, sig, args, array, at)
            return builder.load(_vector_at(builder, pointer, 0, kind), align=4)

        step = _broadcast(builder, args[2], _FLOATS)
        if factor is types.none:
            total = load(0, 1)
        else:
            step = builder.fmul(step, load(3, 5))
            total = builder.sitofp(load(0, 1, _WORDS), _FLOATS)
        other = builder.fmul(load(4, 5), _broadcast(builder, args[6], _FLOATS))
        total = builder.call(_declare_fma(builder), [total, step, other])
        place = _vector_at(builder, _pointer(context, builder, sig, args, 7, 8), 0)
        builder.store(total, place, align=4)
        return context.get_dummy_value()

    return signature, generate


@emitted
def _unpack_16(typingctx: Any, packed: Any, at: Any, out: Any, out_at: Any, bits: Any) -> Any:
    """Sixteen codes from byte ``at`` on, as float32 or uint8, whichever ``out`` holds."""
    signature = types.void(packed, types.int64, out, types.int64, bits)
    (width,) = _literals(bits)
    floats = out.dtype == types.float32

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        packed_ptr = _pointer(context, builder, sig, args, 0, 1)
        out_ptr = _pointer(context, builder, sig, args, 2, 3)
        source = ir.VectorType(_BYTE, 2 * width)
        codes = builder.load(builder.bitcast(packed_ptr, source.as_pointer()), align=1)
        if width < 8:
            # A code lies in one byte or two: take both, shift, mask.
            pairs = [
                min(k * width // 8 + half, 2 * width - 1) for k in range(LANES) for half in (0, 1)
            ]
            mask = ir.Constant(ir.VectorType(_WORD, 2 * LANES), pairs)
            halves = ir.VectorType(_HALF, LANES)
            codes = builder.bitcast(builder.shuffle_vector(codes, codes, mask), halves)
            codes = builder.lshr(codes, ir.Constant(halves, [k * width % 8 for k in range(LANES)]))
            codes = builder.and_(codes, ir.Constant(halves, [2**width - 1] * LANES))
        if floats:
            codes = builder.uitofp(builder.zext(codes, _WORDS), _FLOATS)
        elif width < 8:
            codes = builder.trunc(codes, ir.VectorType(_BYTE, LANES))
        place = builder.bitcast(out_ptr, codes.type.as_pointer())
        builder.store(codes, place, align=4 if floats else 1)
        return context.get_dummy_value()

    return signature, generate


@njit(cache=True, nogil=True)
def aligned_floats(size):  # type: ignore[no-untyped-def]
    """Scratch that begins at a cache line: vectors that cross lines load at half the speed."""
    scratch = np.empty(size + LANES, np.float32)
    begin = -(scratch.ctypes.data // 4) % LANES
    return scratch[begin : begin + size]


@njit(cache=True, nogil=True)
def unpack_groups(packed, at, out, out_at, groups, bits):  # type: ignore[no-untyped-def]
    """``16·groups`` codes from byte ``at`` of the flat ``packed`` to ``out``."""
    if bits == 1:
        for g in range(groups):
            _unpack_16(packed, at + 2 * g, out, out_at + 16 * g, 1)
    elif bits == 2:
        for g in range(groups):
            _unpack_16(packed, at + 4 * g, out, out_at + 16 * g, 2)
    elif bits == 3:
        for g in range(groups):
            _unpack_16(packed, at + 6 * g, out, out_at + 16 * g, 3)
    elif bits == 4:
        for g in range(groups):
            _unpack_16(packed, at + 8 * g, out, out_at + 16 * g, 4)
    elif bits == 5:
        for g in range(groups):
            _unpack_16(packed, at + 10 * g, out, out_at + 16 * g, 5)
    elif bits == 6:
        for g in range(groups):
            _unpack_16(packed, at + 12 * g, out, out_at + 16 * g, 6)
    elif bits == 7:
        for g in range(groups):
            _unpack_16(packed, at + 14 * g, out, out_at + 16 * g, 7)
    else:
        for g in range(groups):
            _unpack_16(packed, at + 16 * g, out, out_at + 16 * g, 8)


@njit(cache=True, nogil=True)
def finish_rows(  # type: ignore[no-untyped-def]
    sums, sums_at, lanes, lo, scale, factor, of_lo, out, begin, rows, first
):
    """``out = scale · factor · sums + lo · of_lo`` for ``lanes`` outputs of some rows.

    ``sums`` is flat and ``(rows, lanes)`` from ``sums_at`` on: floats, and ``factor`` is None; or
    int32, and ``factor`` has a number for each output. ``factor`` and ``of_lo`` are filled up;
    ``out`` may end earlier.
    """
    outputs = min(lanes, out.shape[1] - first)
    flat = out.reshape(-1)
    rest = np.empty(LANES, np.float32)
    whole = outputs // 16 * 16
    for r in range(rows):
        low = lo[begin + r] if lo.size > 1 else lo[0]
        step = scale[begin + r] if scale.size > 1 else scale[0]
        at, place = sums_at + r * lanes, (begin + r) * out.shape[1] + first
        for k in range(0, whole, 16):
            _finish_16(sums, at + k, step, factor, of_lo, first + k, low, flat, place + k)
        if whole < outputs:
            _finish_16(sums, at + whole, step, factor, of_lo, first + whole, low, rest, 0)
            for k in range(whole, outputs):
                flat[place + k] = rest[k - whole]


@emitted
def prefetch(typingctx: Any, array: Any, at: Any) -> Any:
    """Asks for the cache line of ``array[at]``, which need not exist, to be in L2."""
    signature = types.void(array, types.int64)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _prefetch_at(builder, _pointer(context, builder, sig, args, 0, 1), 2)
        return context.get_dummy_value()

    return signature, generate


def _prefetch_at(builder: Any, pointer: Any, locality: int) -> None:
    """Asks for a cache line; ``locality`` 3 for L1, 2 for L2."""
    pointer = builder.bitcast(pointer, _BYTE.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, _WORD, _WORD, _WORD])
    name = "llvm.prefetch.p0"
    instruction = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(instruction, [pointer, *(ir.Constant(_WORD, n) for n in (0, locality, 1))])


def _loop(
    builder: Any, count: Any, sums: Sequence[Any], body: Callable[[Any, Sequence[Any]], list[Any]]
) -> list[Any]:
    """A loop that carries ``sums`` in registers; gives them after ``count`` rounds."""
    before = builder.block
    inside, after = builder.append_basic_block("tile"), builder.append_basic_block("tile.end")
    builder.cbranch(builder.icmp_signed(">", count, _ZERO), inside, after)
    builder.position_at_end(inside)
    k = builder.phi(_INDEX)
    carried = [builder.phi(s.type) for s in sums]
    new = body(k, carried)
    following = builder.add(k, ir.Constant(_INDEX, 1))
    k.add_incoming(_ZERO, before)
    k.add_incoming(following, builder.block)
    for phi, start, end in zip(carried, sums, new, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(end, builder.block)
    last = builder.block
    builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
    builder.position_at_end(after)
    results = []
    for start, end in zip(sums, new, strict=True):
        result = builder.phi(start.type)
        result.add_incoming(start, before)
        result.add_incoming(end, last)
        results.append(result)
    return results


def load_first(builder: Any, place: Any, count: Any) -> Any:
    """Sixteen floats, of which ``count`` are there; the others are 0."""
    kind = ir.FunctionType(_FLOATS, [place.type, _WORD, _MASK, _FLOATS])
    name = "llvm.masked.load.v16f32.p0"
    load = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    nothing = ir.Constant(_FLOATS, None)
    return builder.call(load, [place, ir.Constant(_WORD, 4), _first(builder, count), nothing])


def store_first(builder: Any, vector: Any, place: Any, count: Any) -> None:
    """Stores the first ``count`` floats of sixteen."""
    kind = ir.FunctionType(ir.VoidType(), [_FLOATS, place.type, _WORD, _MASK])
    name = "llvm.masked.store.v16f32.p0"
    store = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(store, [vector, place, ir.Constant(_WORD, 4), _first(builder, count)])


def _first(builder: Any, count: Any) -> Any:
    indices = ir.VectorType(_INDEX, LANES)
    lanes = ir.Constant(indices, list(range(LANES)))
    return builder.icmp_signed("<", lanes, _broadcast(builder, count, indices))


def _dot_of_fours(builder: Any) -> Callable[[Any, Any, Any], Any]:
    """``sum + Σ_4 unsigned byte · signed byte`` in each of 16 words."""
    if _has_vnni():
        kind = ir.FunctionType(_WORDS, [_WORDS] * 3)
        name = "llvm.x86.avx512.vpdpbusd.512"
        instruction = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return lambda total, left, right: builder.call(instruction, [total, left, right])

    def portable(total: Any, left: Any, right: Any) -> Any:
        top = ir.Constant(_WORDS, [24] * LANES)
        for byte in range(4):
            up = ir.Constant(_WORDS, [8 * (3 - byte)] * LANES)
            unsigned = builder.lshr(builder.shl(left, up), top)
            signed = builder.ashr(builder.shl(right, up), top)
            total = builder.add(total, builder.mul(unsigned, signed))
        return total

    return portable


def _has_vnni() -> bool:
    """Whether numba compiles for a CPU with the byte products of AVX-512."""
    chosen, name = getattr(config, "CPU_FEATURES", None), getattr(config, "CPU_NAME", None)
    if chosen is not None:
        return "+avx512vnni" in chosen
    if name not in (None, "", "host", binding.get_host_cpu_name()):
        return False
    features = binding.get_host_cpu_features()
    return bool(features.get("avx512vnni") and features.get("avx512f"))


def _declare_fma(builder: Any) -> Any:
    # Fused where the CPU can.
    name = "llvm.fmuladd.v16f32"
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def _broadcast(builder: Any, scalar: Any, kind: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_WORD, 0))
    mask = ir.Constant(ir.VectorType(_WORD, kind.count), None)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), mask)


def _pointer(context: Any, builder: Any, sig: Any, args: Any, array: int, at: int) -> Any:
    data = context.make_array(sig.args[array])(context, builder, args[array]).data
    return builder.gep(data, [args[at]])


def _vector_at(builder: Any, pointer: Any, offset: int, kind: Any = _FLOATS) -> Any:
    place = builder.gep(pointer, [ir.Constant(_INDEX, offset)])
    return builder.bitcast(place, kind.as_pointer())


def _literals(*numbers: Any) -> list[int]:
    # They stay literals in signatures, by which numba tells one version of the code from another.
    return [int(n.literal_value) for n in numbers]
