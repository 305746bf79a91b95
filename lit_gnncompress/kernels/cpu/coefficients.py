"""The attention coefficients of one destination, 16 at a time: exponents, codes, sums, extremes.

Coefficients ``(k, h)`` of edges and heads lie one after the other in a scratch that has ``LANES``
floats more than it holds, which may be written to. Heads are literals. Several edges fill a vector,
if heads fit in it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Callable, Sequence
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
            x = exponential(builder, builder.fsub(x, highest))
            return x, [x]

        [sums] = _each(builder, [scratch], count, heads, change, [(0.0, builder.fadd)])
        store(builder, sums, total, _LONG(0))
        return context.get_dummy_value()

    return types.void(scratch, count, maximum, total, heads), generate


@intrinsic(prefer_literal=True)
def round_to_codes(typing, scratch, count, divisor, lo, scale, levels, total, heads):
    """Coefficients ``scratch[k, h] / divisor[h]`` as ``rounded`` to codes, and their sums."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scratch, count, divisor, *range_, total, _ = unpacked(context, builder, signature, args)
        heads = signature.args[-1].literal_value
        divisor = _by_lane(builder, divisor, heads)
        range_ = [splat(builder, end, divisor.type) for end in range_]

        def change(x: Any) -> Any:
            x = rounded(builder, builder.fdiv(x, divisor), *range_)
            return x, [x]

        [sums] = _each(builder, [scratch], count, heads, change, [(0.0, builder.fadd)])
        store(builder, sums, total, _LONG(0))
        return context.get_dummy_value()

    signature = types.void(scratch, count, divisor, lo, scale, levels, total, heads)
    return signature, generate


@intrinsic(prefer_literal=True)
def sum_codes(
    typing, scratch, factors, count, divisor, lo, scale, levels, total, weighted, heads
):  # fmt: skip
    """As ``round_to_codes``, but only sums: of codes, and of codes times ``factors[k, h]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scratch, factors, count, divisor, *range_, total, weighted, _ = unpacked(
            context, builder, signature, args
        )
        heads = signature.args[-1].literal_value
        divisor = _by_lane(builder, divisor, heads)
        range_ = [splat(builder, end, divisor.type) for end in range_]

        def change(x: Any, factor: Any) -> Any:
            x = rounded(builder, builder.fdiv(x, divisor), *range_)
            return None, [x, builder.fmul(x, factor)]

        folds = [(0.0, builder.fadd)] * 2
        for sums, target in zip(
            _each(builder, [scratch, factors], count, heads, change, folds),
            (total, weighted),
            strict=True,
        ):
            store(builder, sums, target, _LONG(0))
        return context.get_dummy_value()

    return types.void(
        scratch, factors, count, divisor, lo, scale, levels, total, weighted, heads
    ), generate  # fmt: skip


@intrinsic(prefer_literal=True)
def scale_and_sum(typing, scratch, factors, count, scale, shift, total, heads):
    """``scratch[k, h] *= scale[h]``, and the sums of that times ``factors[k, h] - shift[h]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scratch, factors, count, scale, shift, total, _ = unpacked(
            context, builder, signature, args
        )
        heads = signature.args[-1].literal_value
        scale, shift = (_by_lane(builder, each, heads) for each in (scale, shift))

        def change(x: Any, factor: Any) -> Any:
            x = builder.fmul(x, scale)
            return x, [builder.fmul(x, builder.fsub(factor, shift))]

        [sums] = _each(builder, [scratch, factors], count, heads, change, [(0.0, builder.fadd)])
        store(builder, sums, total, _LONG(0))
        return context.get_dummy_value()

    return types.void(scratch, factors, count, scale, shift, total, heads), generate


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

        folds = [(float("inf"), lower), (float("-inf"), higher)]
        found = _each(builder, [scratch], count, heads, lambda x: (None, [x, x]), folds)
        vector = found[0].type
        divisor = load(builder, divisor, _LONG(0), vector)
        for ends, end, (none, fold) in zip((least, most), found, folds, strict=True):
            # To divide keeps the order. What is divided by NaN is left out.
            end = fold(constant(vector, none), builder.fdiv(end, divisor))
            store(builder, end, ends, _LONG(0))
        return context.get_dummy_value()

    return types.void(scratch, count, divisor, least, most, heads), generate


def rounded(builder: Any, x: Any, lo: Any, scale: Any, levels: Any) -> Any:
    """Coefficients by their codes, 0 to ``levels``: each step is rounded as torch does.

    Without a positive ``scale`` all are ``lo``.
    """
    vector = x.type
    name, kind = f"llvm.rint.v{vector.count}f32", ir.FunctionType(vector, [vector])
    nearest = cgutils.get_or_insert_function(builder.module, kind, name)
    code = builder.call(nearest, [builder.fdiv(builder.fsub(x, lo), scale)])
    zero = constant(vector, 0.0)
    code = builder.select(builder.fcmp_ordered("<", code, zero), zero, code)
    code = builder.select(builder.fcmp_ordered(">", code, levels), levels, code)
    is_range = builder.fcmp_ordered(">", scale, zero)
    return builder.select(is_range, builder.fadd(builder.fmul(code, scale), lo), lo)


def _each(
    builder: Any,
    scratches: Sequence[Any],
    count: Any,
    heads: int,
    change: Callable[..., tuple[Any, list[Any]]],
    folds: Sequence[tuple[float, Fold]],
) -> list[Any]:
    """Goes through the coefficients of ``count`` edges, and folds terms head by head.

    Args:
        builder: Of LLVM.
        scratches: Arrays that ``change`` gets vectors of.
        count: Edges.
        heads: Coefficients of an edge.
        change: Gives what takes the place of the first array's vector, or ``None``; and a term for
            each fold.
        folds: What each begins with, and what it makes of two vectors.

    Returns:
        The results of the folds, a lane for each head.
    """
    lanes = _lanes(heads)
    vector = ir.VectorType(_FLOAT, lanes)
    found = [cgutils.alloca_once_value(builder, constant(vector, none)) for none, _ in folds]
    size = builder.mul(count, _LONG(heads))
    places = ir.Constant(ir.VectorType(_LONG, lanes), [_LONG(lane) for lane in range(lanes)])
    whole = builder.mul(builder.sdiv(size, _LONG(lanes)), _LONG(lanes))

    def step(place: Any, masked: bool) -> None:
        value, terms = change(*(load(builder, scratch, place, vector) for scratch in scratches))
        if value is not None:
            store(builder, value, scratches[0], place)
        for pointer, (none, fold), term in zip(found, folds, terms, strict=True):
            if masked:
                left = splat(builder, builder.sub(size, place), places.type)
                inside = builder.icmp_signed("<", places, left)
                term = builder.select(inside, term, constant(vector, none))
            builder.store(fold(builder.load(pointer), term), pointer)

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
