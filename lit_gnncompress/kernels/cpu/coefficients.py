"""The attention coefficients of one destination, 16 at a time: exponents, codes, extremes.

Coefficients ``(k, h)`` of edges and heads lie one after the other in a scratch that has ``LANES``
floats more than it holds. Heads are literals. Several edges fill a vector, if heads fit in it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lit_gnncompress.kernels.cpu.attention_vector import (
    LANES,
    load,
    pick,
    splat,
    store,
    unpacked,
)
from lit_gnncompress.kernels.cpu.exponential import constant, exponential

_FLOAT, _LONG = ir.FloatType(), ir.IntType(64)

Fold = Callable[[Any, Any], Any]


@intrinsic(prefer_literal=True)
def exponentiate(typing, scratch, count, maximum, total, heads):
    """``scratch[k, h] = exp(scratch[k, h] - maximum[h])`` for ``count`` edges, and their sums.

    Exponents must not be positive.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scratch, count, maximum, total, _ = unpacked(context, builder, signature, args)
        heads = signature.args[-1].literal_value
        highest = _by_lane(builder, maximum, heads)

        def change(x: Any) -> Any:
            return exponential(builder, builder.fsub(x, highest))

        (sums,) = _each(builder, scratch, count, heads, change, ((0.0, builder.fadd),))
        store(builder, sums, total, _LONG(0))
        return context.get_dummy_value()

    return types.void(scratch, count, maximum, total, heads), generate


@intrinsic(prefer_literal=True)
def round_to_codes(typing, scratch, count, divisor, lo, scale, levels, total, heads):
    """Coefficients ``scratch[k, h] / divisor[h]`` by their codes 0 to ``levels``, and their sums.

    Each operation is rounded as torch does; without a positive ``scale`` all are ``lo``.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scratch, count, divisor, lo, scale, levels, total, _ = unpacked(
            context, builder, signature, args
        )
        heads = signature.args[-1].literal_value
        divisor = _by_lane(builder, divisor, heads)
        zero = constant(divisor.type, 0.0)
        is_range = builder.fcmp_ordered(">", scale, _FLOAT(0.0))
        lo, scale, levels = (splat(builder, end, divisor.type) for end in (lo, scale, levels))
        kind = ir.FunctionType(divisor.type, [divisor.type])
        name = f"llvm.rint.v{divisor.type.count}f32"
        nearest = cgutils.get_or_insert_function(builder.module, kind, name)

        def change(x: Any) -> Any:
            x = builder.fdiv(builder.fsub(builder.fdiv(x, divisor), lo), scale)
            code = builder.call(nearest, [x])
            code = builder.select(builder.fcmp_ordered("<", code, zero), zero, code)
            code = builder.select(builder.fcmp_ordered(">", code, levels), levels, code)
            return builder.select(is_range, builder.fadd(builder.fmul(code, scale), lo), lo)

        (sums,) = _each(builder, scratch, count, heads, change, ((0.0, builder.fadd),))
        store(builder, sums, total, _LONG(0))
        return context.get_dummy_value()

    signature = types.void(scratch, count, divisor, lo, scale, levels, total, heads)
    return signature, generate


@intrinsic(prefer_literal=True)
def find_extremes(typing, scratch, count, divisor, least, most, heads):
    """Least and most of ``scratch[k, h] / divisor[h]`` over ``count`` edges, for each head.

    NaN is neither; infinity stands for the least of nothing, its negative for the most.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scratch, count, divisor, least, most, _ = unpacked(context, builder, signature, args)
        heads = signature.args[-1].literal_value

        def lower(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered("<", b, a), b, a)

        def higher(a: Any, b: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", b, a), b, a)

        folds = ((float("inf"), lower), (float("-inf"), higher))
        found = _each(builder, scratch, count, heads, None, folds)
        vector = found[0].type
        divisor = load(builder, divisor, _LONG(0), vector)
        for ends, end, (none, fold) in zip((least, most), found, folds, strict=True):
            # To divide keeps the order. What is divided by NaN is left out.
            store(builder, fold(constant(vector, none), builder.fdiv(end, divisor)), ends, _LONG(0))
        return context.get_dummy_value()

    return types.void(scratch, count, divisor, least, most, heads), generate


def _each(
    builder: Any,
    scratch: Any,
    count: Any,
    heads: int,
    change: Callable[[Any], Any] | None,
    folds: tuple[tuple[float, Fold], ...],
) -> list[Any]:
    """Changes the coefficients of ``count`` edges in place, and folds them head by head.

    A fold has what it begins with, and what it makes of two vectors.
    """
    lanes = _lanes(heads)
    vector = ir.VectorType(_FLOAT, lanes)
    found = [cgutils.alloca_once_value(builder, constant(vector, none)) for none, _ in folds]
    size = builder.mul(count, _LONG(heads))
    places = ir.Constant(ir.VectorType(_LONG, lanes), [_LONG(lane) for lane in range(lanes)])
    whole = builder.mul(builder.sdiv(size, _LONG(lanes)), _LONG(lanes))

    def step(place: Any, masked: bool) -> None:
        value = load(builder, scratch, place, vector)
        if change is not None:
            value = change(value)
            store(builder, value, scratch, place)
        for pointer, (none, fold) in zip(found, folds, strict=True):
            part = value
            if masked:
                left = splat(builder, builder.sub(size, place), places.type)
                inside = builder.icmp_signed("<", places, left)
                part = builder.select(inside, value, constant(vector, none))
            builder.store(fold(builder.load(pointer), part), pointer)

    with cgutils.for_range_slice(builder, _LONG(0), whole, _LONG(lanes), _LONG) as (place, _):
        step(place, False)
    with builder.if_then(builder.icmp_signed("<", whole, size)):
        step(whole, True)
    results = []
    for pointer, (_, fold) in zip(found, folds, strict=True):
        value = builder.load(pointer)
        while value.type.count > heads:
            half = value.type.count // 2
            parts = (range(half), range(half, 2 * half))
            value = fold(*(pick(builder, value, part) for part in parts))
        results.append(value)
    return results


def _lanes(heads: int) -> int:
    return LANES if LANES % heads == 0 else heads


def _by_lane(builder: Any, of_heads: Any, heads: int) -> Any:
    """A number of each head, in all lanes of its coefficients."""
    values = load(builder, of_heads, _LONG(0), ir.VectorType(_FLOAT, heads))
    return pick(builder, values, [lane % heads for lane in range(_lanes(heads))])
