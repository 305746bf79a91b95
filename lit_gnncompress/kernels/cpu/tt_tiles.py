"""Products of the small matrices of tensor trains, their sums kept in registers.

Matrices are told by the address of their first float and the floats between rows, so that scratch
and tables are read where they lie. What is addressed must be kept by the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 16
HALF = 8
_FLOAT, _I8, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_HEIGHTS = {1: (16, 8, 4, 2, 1), 2: (8, 4, 2, 1)}
"""Rows of tiles of one vector and of two: 16 sums, which hide how long an addition takes."""

# Numba's own types do not know that numba passes the first argument.
_helper: Any = intrinsic(prefer_literal=True)


def padded(columns: int) -> int:
    """Columns of rows that begin and end with whole vectors: 8, or a multiple of 16."""
    return HALF if columns <= HALF else -(-columns // LANES) * LANES


@_helper
def address(typingctx: Any, array: Any) -> Any:
    """Where an array begins."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _I64)

    return types.int64(array), build


@_helper
def product(
    typingctx: Any,
    a: Any,
    a_step: Any,
    b: Any,
    b_step: Any,
    depth: Any,
    c: Any,
    c_row: Any,
    count: Any,
    a_row: Any,
    width: Any,
    add: Any,
) -> Any:
    """``c[i, :] = Σ_k a[k·a_step + i·a_row] · b[k, :]`` for ``i < count``, added to ``c`` if asked.

    Args:
        typingctx: Numba's.
        a: Address.
        a_step: Floats between the factors of two ``k``.
        b: Address.
        b_step: Floats between two rows.
        depth: How many ``k``.
        c: Address.
        c_row: Floats between two rows.
        count: Rows of ``c``.
        a_row: Floats between the factors of two rows, a literal.
        width: Columns, a literal that :func:`padded` gives.
        add: Whether to add, a literal.
    """
    index = types.int64
    signature = types.void(*[index] * 8, a_row, width, add)
    stride, columns, adds = (literal.literal_value for literal in (a_row, width, add))

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, a_step, b, b_step, depth, c, c_row, count = args[:8]
        for first, lanes, vectors in _column_blocks(columns):
            row = cgutils.alloca_once_value(builder, _I64(0))
            for height in _HEIGHTS[vectors]:

                def some_are_left(height: int = height, row: Any = row) -> Any:
                    end = builder.add(builder.load(row), _I64(height))
                    return builder.icmp_signed("<=", end, count)

                with _loop_while(builder, some_are_left):
                    i = builder.load(row)
                    tile = _Tile(builder, height, vectors, lanes)
                    places = [
                        _moved(builder, c, builder.mul(builder.add(i, _I64(t)), c_row), first)
                        for t in range(height)
                    ]
                    tile.begin(places if adds else None)
                    a_first = _moved(builder, a, builder.mul(i, _I64(stride)), 0)
                    with cgutils.for_range(builder, depth, intp=_I64) as loop:
                        left = _moved(builder, a_first, builder.mul(loop.index, a_step), 0)
                        right = _moved(builder, b, builder.mul(loop.index, b_step), first)
                        tile.step(left, stride, right)
                    tile.store(places)
                    builder.store(builder.add(i, _I64(height)), row)
        return context.get_dummy_value()

    return signature, build


@_helper
def transpose_8(typingctx: Any, a: Any, a_row: Any, out: Any, out_row: Any) -> Any:
    """``out[j, i] = a[i, j]`` for 8 × 8 floats; the addresses, and the floats between rows."""
    index = types.int64

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, a_row, out, out_row = args
        rows = []
        for i in range(HALF):
            place = _moved(builder, a, builder.mul(_I64(i), a_row), 0)
            rows.append(builder.load(_vectors(builder, place, HALF), align=4))
        for _ in range(3):  # zipping the halves thrice turns rows into columns
            pairs = zip(rows[: HALF // 2], rows[HALF // 2 :], strict=True)
            rows = [_zip(builder, *pair, begin) for pair in pairs for begin in (0, HALF // 2)]
        for j, column in enumerate(rows):
            place = _moved(builder, out, builder.mul(_I64(j), out_row), 0)
            builder.store(column, _vectors(builder, place, HALF), align=4)
        return context.get_dummy_value()

    return types.void(index, index, index, index), build


@_helper
def copy(typingctx: Any, source: Any, target: Any, count: Any) -> Any:
    """Copies ``count`` floats from one address to another."""
    index = types.int64

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target, count = args
        size = builder.mul(count, _I64(4))
        pointers = [builder.inttoptr(a, _I8.as_pointer()) for a in (target, source)]
        kind = ir.FunctionType(
            ir.VoidType(), [pointers[0].type, pointers[1].type, _I64, ir.IntType(1)]
        )
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.memcpy.p0.p0.i64")
        builder.call(function, [*pointers, size, ir.IntType(1)(0)])
        return context.get_dummy_value()

    return types.void(index, index, index), build


@_helper
def add_vectors(typingctx: Any, source: Any, target: Any, count: Any) -> Any:
    """Adds ``count`` floats, a multiple of 8, to those at another address."""
    index = types.int64

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target, count = args
        with cgutils.for_range(builder, builder.sdiv(count, _I64(HALF)), intp=_I64) as loop:
            at = builder.mul(loop.index, _I64(HALF))
            found = _vectors(builder, _moved(builder, source, at, 0), HALF)
            total = _vectors(builder, _moved(builder, target, at, 0), HALF)
            both = builder.fadd(builder.load(total, align=4), builder.load(found, align=4))
            builder.store(both, total, align=4)
        return context.get_dummy_value()

    return types.void(index, index, index), build


@_helper
def scale(typingctx: Any, source: Any, factor: Any, target: Any, count: Any) -> Any:
    """Writes ``count`` floats, a multiple of 8, times a factor to another address, or the same."""
    index = types.int64

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, factor, target, count = args
        factors = _broadcast(builder, factor, ir.VectorType(_FLOAT, HALF))
        with cgutils.for_range(builder, builder.sdiv(count, _I64(HALF)), intp=_I64) as loop:
            at = builder.mul(loop.index, _I64(HALF))
            found = builder.load(_vectors(builder, _moved(builder, source, at, 0), HALF), align=4)
            place = _vectors(builder, _moved(builder, target, at, 0), HALF)
            builder.store(builder.fmul(found, factors), place, align=4)
        return context.get_dummy_value()

    return types.void(index, types.float32, index, index), build


@_helper
def dot(typingctx: Any, a: Any, b: Any, count: Any) -> Any:
    """The sum of the products of ``count`` floats, a multiple of 8, at two addresses."""
    index = types.int64

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, count = args
        kind = ir.VectorType(_FLOAT, HALF)
        sums = cgutils.alloca_once_value(builder, ir.Constant(kind, None))
        with cgutils.for_range(builder, builder.sdiv(count, _I64(HALF)), intp=_I64) as loop:
            at = builder.mul(loop.index, _I64(HALF))
            x, y = (
                builder.load(_vectors(builder, _moved(builder, place, at, 0), HALF), align=4)
                for place in (a, b)
            )
            builder.store(builder.fadd(builder.load(sums), builder.fmul(x, y)), sums)
        lanes = [builder.extract_element(builder.load(sums), _I32(i)) for i in range(HALF)]
        while len(lanes) > 1:
            lanes = [builder.fadd(x, y) for x, y in zip(lanes[::2], lanes[1::2], strict=True)]
        return lanes[0]

    return types.float32(index, index, index), build


@_helper
def prefetch(typingctx: Any, place: Any, count: Any, write: Any) -> Any:
    """Asks for ``count`` floats from an address on, to be written if the literal says so."""
    index = types.int64
    rw = int(write.literal_value)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        lines = builder.sdiv(builder.add(args[1], _I64(LANES - 1)), _I64(LANES))
        with cgutils.for_range(builder, lines, intp=_I64) as loop:
            line = _moved(builder, args[0], builder.mul(loop.index, _I64(LANES)), 0)
            pointer = builder.inttoptr(line, _I8.as_pointer())
            builder.call(function, [pointer, _I32(rw), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(index, index, write), build


class _Tile:
    """Some rows of a product, in registers while the depth runs."""

    def __init__(self, builder: Any, height: int, vectors: int, lanes: int) -> None:
        self._builder, self._lanes, self._vectors = builder, lanes, vectors
        self._kind = ir.VectorType(_FLOAT, lanes)
        self._sums = [
            [cgutils.alloca_once(builder, self._kind) for _ in range(vectors)]
            for _ in range(height)
        ]

    def begin(self, places: list[Any] | None) -> None:
        """With what lies at the addresses, or with zeros."""
        for t, row in enumerate(self._sums):
            for v, total in enumerate(row):
                start = ir.Constant(self._kind, None)
                if places is not None:
                    start = self._builder.load(self._at(places[t], v), align=4)
                self._builder.store(start, total)

    def step(self, left: Any, stride: int, right: Any) -> None:
        """Adds the products of one ``k``."""
        builder = self._builder
        columns = [builder.load(self._at(right, v), align=4) for v in range(self._vectors)]
        name = f"llvm.fmuladd.v{self._lanes}f32"
        kind = ir.FunctionType(self._kind, [self._kind] * 3)
        multiply_add = cgutils.get_or_insert_function(builder.module, kind, name)
        for t, row in enumerate(self._sums):
            place = _moved(builder, left, _I64(t * stride), 0)
            factor = builder.load(builder.inttoptr(place, _FLOAT.as_pointer()), align=4)
            factor = _broadcast(builder, factor, self._kind)
            for total, column in zip(row, columns, strict=True):
                value = builder.call(multiply_add, [factor, column, builder.load(total)])
                builder.store(value, total)

    def store(self, places: list[Any]) -> None:
        """Writes the sums."""
        for place, row in zip(places, self._sums, strict=True):
            for v, total in enumerate(row):
                self._builder.store(self._builder.load(total), self._at(place, v), align=4)

    def _at(self, place: Any, vector: int) -> Any:
        place = self._builder.add(place, _I64(4 * self._lanes * vector))
        return _vectors(self._builder, place, self._lanes)


class _loop_while:
    """The body of a loop that runs while a condition, worked out before each round, holds."""

    def __init__(self, builder: Any, condition: Any) -> None:
        self._builder, self._condition = builder, condition

    def __enter__(self) -> None:
        builder = self._builder
        self._head = builder.append_basic_block("tiles")
        body = builder.append_basic_block("tile")
        self._end = builder.append_basic_block("tiles.end")
        builder.branch(self._head)
        builder.position_at_end(self._head)
        builder.cbranch(self._condition(), body, self._end)
        builder.position_at_end(body)

    def __exit__(self, *_: Any) -> None:
        self._builder.branch(self._head)
        self._builder.position_at_end(self._end)


def _column_blocks(columns: int) -> Iterator[tuple[int, int, int]]:
    """First column, lanes and number of the vectors that tiles take side by side."""
    if columns % LANES:
        yield from ((first, HALF, 1) for first in range(0, columns, HALF))
        return
    for first in range(0, columns, 2 * LANES):
        yield first, LANES, min(2, (columns - first) // LANES)


def _moved(builder: Any, place: Any, floats: Any, columns: int) -> Any:
    """An address some floats, and some columns, further on."""
    return builder.add(place, builder.shl(builder.add(floats, _I64(columns)), _I64(2)))


def _vectors(builder: Any, place: Any, lanes: int) -> Any:
    return builder.inttoptr(place, ir.VectorType(_FLOAT, lanes).as_pointer())


def _broadcast(builder: Any, number: Any, kind: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    single = builder.insert_element(undefined, number, _I32(0))
    first = ir.Constant(ir.VectorType(_I32, kind.count), None)
    return builder.shuffle_vector(single, undefined, first)


def _zip(builder: Any, a: Any, b: Any, begin: int) -> Any:
    """A lane of ``a``, then one of ``b``, from ``begin`` on."""
    lanes = [begin + i // 2 + i % 2 * HALF for i in range(HALF)]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, HALF), lanes))
