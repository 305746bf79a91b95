"""Loops over the edges of one destination, written for LLVM: what numba would not vectorise.

Heads, channels and bits are literals, so that accumulators stay in registers. Vectors that are
wider than the machine's, or odd, LLVM takes apart by itself.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lit_gnncompress.kernels.cpu.exponential import constant, integers, multiply_add

LANES = 16
_BLOCK = 16  # vectors that are summed at a time: half of the registers of AVX-512
_AHEAD = 32  # edges between a prefetch and its use
_CACHE_LINE = 64

_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)


@intrinsic(prefer_literal=True)
def find_scores(typing, gathered, own, col, begin, end, row, slope, scratch, maximum, heads):
    """``scratch[k, h] = leaky_relu(gathered[col[begin + k], h] + own[row, h])``, and maxima.

    Arrays are flat and contiguous. ``maximum[h]`` is the largest of each head, minus infinity
    without edges.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        gathered, own, col, begin, end, row, slope, scratch, maximum, _ = unpacked(
            context, builder, signature, args
        )
        size = signature.args[-1].literal_value
        vector = ir.VectorType(_FLOAT, size)
        stride = _LONG(size)
        mine = load(builder, own, builder.mul(row, stride), vector)
        slope = splat(builder, slope, vector)
        highest = cgutils.alloca_once_value(builder, constant(vector, float("-inf")))
        with cgutils.for_range_slice(builder, begin, end, _LONG(1), _LONG) as (slot, _count):
            source = node(builder, col, slot)
            score = builder.fadd(load(builder, gathered, builder.mul(source, stride), vector), mine)
            above = builder.fcmp_ordered(">", score, constant(vector, 0.0))
            score = builder.select(above, score, builder.fmul(score, slope))
            place = builder.mul(builder.sub(slot, begin), stride)
            store(builder, score, scratch, place)
            best = builder.load(highest)
            above = builder.fcmp_ordered(">", score, best)
            builder.store(builder.select(above, score, best), highest)
        store(builder, builder.load(highest), maximum, _LONG(0))
        return context.get_dummy_value()

    return types.void(gathered, own, col, begin, end, row, slope, scratch, maximum, heads), generate


@intrinsic(prefer_literal=True)
def weigh(
    typing, values, lo, scale, each, col, begin, end, edges, alpha, factor, out, row,
    heads, channels, bits,
):  # fmt: skip
    """``out[row, h, c] = factor[h] * sum_k alpha[k, h] * values[col[begin + k], h, c]``.

    Args:
        typing: Of numba.
        values: float32 rows if ``bits`` is 0, else packed rows.
        lo: Value of code 0 of packed rows.
        scale: Distance of two codes.
        each: 1 if every row has its own ``lo`` and ``scale``, 0 if they share one.
        col: Row of each edge.
        begin: First edge of the destination.
        end: One after its last.
        edges: Edges of the graph, for the prefetch.
        alpha: Weights, with ``LANES`` floats after them that can be read.
        factor: What the sum is multiplied by, likewise.
        out: Result.
        row: Destination.
        heads: Number of heads.
        channels: Columns of a head.
        bits: Bits of a code; 0 for float32.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values, lo, scale, each, col, begin, end, edges, alpha, factor, out, row, *_ = unpacked(
            context, builder, signature, args
        )
        heads, channels, bits = (argument.literal_value for argument in signature.args[-3:])
        width = heads * channels
        groups = -(-width // LANES)
        row_bytes = groups * 2 * bits if bits else 4 * width
        base = builder.bitcast(values, ir.IntType(8).as_pointer())
        result = builder.mul(row, _LONG(width))
        pieces = [(LANES * i, LANES) for i in range(groups)] if bits else _pieces(0, width)
        for start in range(0, len(pieces), _BLOCK):
            block = pieces[start : start + _BLOCK]
            sums = [
                cgutils.alloca_once_value(builder, constant(ir.VectorType(_FLOAT, size), 0.0))
                for _, size in block
            ]
            with cgutils.for_range_slice(builder, begin, end, _LONG(1), _LONG) as (slot, _count):
                source = node(builder, col, slot)
                address = builder.gep(base, [builder.mul(source, _LONG(row_bytes))])
                _prefetch(builder, base, col, slot, edges, row_bytes, block, bits)
                if bits:
                    place = builder.mul(source, each)
                    of_row = [builder.load(builder.gep(ends, [place])) for ends in (lo, scale)]
                weights = builder.mul(builder.sub(slot, begin), _LONG(heads))
                for (first, size), sum_ in zip(block, sums, strict=True):
                    vector = ir.VectorType(_FLOAT, size)
                    weight = _by_lane(builder, alpha, weights, first, size, heads, channels)
                    if bits:
                        value = _codes(builder, address, first, bits)
                        low, step = (splat(builder, end_, vector) for end_ in of_row)
                        value = builder.fadd(builder.fmul(value, step), low)
                    else:
                        at = builder.gep(address, [_LONG(4 * first)])
                        value = load(builder, at, _LONG(0), vector)
                    builder.store(multiply_add(builder, weight, value, builder.load(sum_)), sum_)
            for (first, size), sum_ in zip(block, sums, strict=True):
                last = _by_lane(builder, factor, _LONG(0), first, size, heads, channels)
                value = builder.fmul(builder.load(sum_), last)
                for piece, length in _pieces(first, min(width, first + size)):
                    lanes = range(piece - first, piece - first + length)
                    part = pick(builder, value, lanes) if length < size else value
                    store(builder, part, out, builder.add(result, _LONG(piece)))
        return context.get_dummy_value()

    return types.void(
        values, lo, scale, each, col, begin, end, edges, alpha, factor, out, row,
        heads, channels, bits,
    ), generate  # fmt: skip


@intrinsic(prefer_literal=True)
def multiply_heads(typing, gathered, own, col, begin, end, edges, row, products, heads, channels):
    """``products[k, h] = sum_c gathered[col[begin + k], h, c] * own[row, h, c]``.

    The sum of a head is that of its lanes by halves, always in the same order.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        gathered, own, col, begin, end, edges, row, products, *_ = unpacked(
            context, builder, signature, args
        )
        heads, channels = (argument.literal_value for argument in signature.args[-2:])
        width = heads * channels
        base = builder.bitcast(gathered, ir.IntType(8).as_pointer())
        mine = builder.mul(row, _LONG(width))
        with cgutils.for_range_slice(builder, begin, end, _LONG(1), _LONG) as (slot, _count):
            theirs = builder.mul(node(builder, col, slot), _LONG(width))
            _prefetch(builder, base, col, slot, edges, 4 * width, [(0, width)], 0)
            place = builder.mul(builder.sub(slot, begin), _LONG(heads))
            for head in range(heads):
                by_size: dict[int, Any] = {}
                for first, size in _pieces(head * channels, (head + 1) * channels):
                    vector = ir.VectorType(_FLOAT, size)
                    a, b = (
                        load(builder, array, builder.add(start, _LONG(first)), vector)
                        for array, start in ((gathered, theirs), (own, mine))
                    )
                    known = by_size.get(size)
                    by_size[size] = (
                        builder.fmul(a, b) if known is None else multiply_add(builder, a, b, known)
                    )
                product = _sum_of_lanes(builder, by_size)
                at = builder.gep(products, [builder.add(place, _LONG(head))])
                builder.store(product, at)
        return context.get_dummy_value()

    return types.void(
        gathered, own, col, begin, end, edges, row, products, heads, channels
    ), generate


def _sum_of_lanes(builder: Any, by_size: dict[int, Any]) -> Any:
    """The sum of all lanes of vectors with different powers of two of them."""
    if not by_size:
        return _FLOAT(0.0)
    size = max(by_size)
    total = by_size[size]
    while size > 1:
        size //= 2
        total = builder.fadd(
            pick(builder, total, range(size)), pick(builder, total, range(size, 2 * size))
        )
        if size in by_size:
            total = builder.fadd(total, by_size[size])
    return builder.extract_element(total, _INT(0))


def _pieces(begin: int, end: int) -> list[tuple[int, int]]:
    """Columns as vectors of 16, and what is left as smaller ones: nothing is read beyond a row."""
    pieces = []
    while begin < end:
        size = min(LANES, 1 << ((end - begin).bit_length() - 1))
        pieces.append((begin, size))
        begin += size
    return pieces


def _by_lane(
    builder: Any, weights: Any, place: Any, first: int, size: int, heads: int, channels: int
) -> Any:
    """The weight of each column ``first …``: that of its head."""
    owners = [min((first + lane) // channels, heads - 1) for lane in range(size)]
    at = builder.add(place, _LONG(owners[0]))
    vector = ir.VectorType(_FLOAT, size)
    if owners[0] == owners[-1]:
        return splat(builder, builder.load(builder.gep(weights, [at])), vector)
    loaded = load(builder, weights, at, ir.VectorType(_FLOAT, LANES))
    return pick(builder, loaded, [owner - owners[0] for owner in owners])


def _codes(builder: Any, row: Any, first: int, bits: int) -> Any:
    """Sixteen codes of a packed row as floats."""
    address = builder.gep(row, [_LONG(first * bits // 8)])
    floats = ir.VectorType(_FLOAT, LANES)
    if bits == 1:
        word = builder.load(builder.bitcast(address, ir.IntType(16).as_pointer()), align=1)
        return builder.uitofp(builder.bitcast(word, ir.VectorType(ir.IntType(1), LANES)), floats)
    ints = ir.VectorType(_INT, LANES)
    if 32 % bits == 0:
        # Whole codes in each 32-bit word
        words = ir.VectorType(_INT, bits // 2)
        loaded = builder.load(builder.bitcast(address, words.as_pointer()), align=1)
        in_word = 32 // bits
        spread = pick(builder, loaded, [lane // in_word for lane in range(LANES)])
        shifts = [bits * (lane % in_word) for lane in range(LANES)]
    else:
        # A code lies in two neighbouring bytes at most.
        bytes_ = ir.VectorType(ir.IntType(8), 2 * bits)
        loaded = builder.load(builder.bitcast(address, bytes_.as_pointer()), align=1)
        low = [lane * bits // 8 for lane in range(LANES)]
        high = [min(place + 1, 2 * bits - 1) for place in low]
        spread, above = (
            builder.zext(pick(builder, loaded, places), ints) for places in (low, high)
        )
        spread = builder.or_(spread, builder.shl(above, integers(ints, [8] * LANES)))
        shifts = [lane * bits % 8 for lane in range(LANES)]
    codes = builder.lshr(spread, integers(ints, shifts))
    return builder.uitofp(builder.and_(codes, integers(ints, [2**bits - 1] * LANES)), floats)


def _prefetch(
    builder: Any,
    base: Any,
    col: Any,
    slot: Any,
    edges: Any,
    row_bytes: int,
    block: Sequence[tuple[int, int]],
    bits: int,
) -> None:
    """Asks for the block of the row some edges ahead, or of the last one."""
    ahead = builder.add(slot, _LONG(_AHEAD))
    inside = builder.icmp_signed("<", ahead, edges)
    row = node(builder, col, builder.select(inside, ahead, slot))
    pointer = ir.IntType(8).as_pointer()
    type_ = ir.FunctionType(ir.VoidType(), [pointer, _INT, _INT, _INT])
    function = cgutils.get_or_insert_function(builder.module, type_, "llvm.prefetch.p0")
    bytes_of = bits / 8 if bits else 4
    begin, end = int(block[0][0] * bytes_of), int(sum(block[-1]) * bytes_of)
    # As ``vector.prefetch``: more than a line comes into the second cache.
    nearness = _INT(3 if end - begin <= _CACHE_LINE else 2)
    for offset in range(begin, end, _CACHE_LINE):
        address = builder.gep(
            base, [builder.add(builder.mul(row, _LONG(row_bytes)), _LONG(offset))]
        )
        builder.call(function, [address, _INT(0), nearness, _INT(1)])


def unpacked(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Data of arrays, values of numbers."""
    return [
        context.make_array(type_)(context, builder, value).data
        if isinstance(type_, types.Array)
        else value
        for type_, value in zip(signature.args, args, strict=True)
    ]


def node(builder: Any, col: Any, slot: Any) -> Any:
    """``col[slot]``."""
    return builder.sext(builder.load(builder.gep(col, [slot])), _LONG)


def load(builder: Any, array: Any, place: Any, vector: Any) -> Any:
    """A vector from ``array[place]`` on."""
    address = builder.bitcast(array, _FLOAT.as_pointer())
    address = builder.bitcast(builder.gep(address, [place]), vector.as_pointer())
    return builder.load(address, align=4)


def store(builder: Any, value: Any, array: Any, place: Any) -> None:
    """Writes a vector from ``array[place]`` on."""
    address = builder.bitcast(builder.gep(array, [place]), value.type.as_pointer())
    builder.store(value, address, align=4)


def pick(builder: Any, vector: Any, lanes: Sequence[int]) -> Any:
    """These lanes of a vector."""
    mask = integers(ir.VectorType(_INT, len(lanes)), lanes)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def splat(builder: Any, value: Any, vector: Any) -> Any:
    """``value`` in all lanes of such a vector."""
    empty = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, value, _INT(0))
    return builder.shuffle_vector(
        first, empty, integers(ir.VectorType(_INT, vector.count), [0] * vector.count)
    )
