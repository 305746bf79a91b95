"""Exponentials of vectors of floats, and the ELU made of them, written for LLVM."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lit_gnncompress.kernels.cpu.vector import LANES

_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_SMALLEST = -87.33654  # below, exp is no normal number
_NEAR_ZERO = -1 / 32  # above, exp(x) - 1 would lose digits


@intrinsic(prefer_literal=True)
def apply_elu(typing, row, count):
    """``row[i] = row[i] if row[i] > 0 else exp(row[i]) - 1`` for ``count`` floats.

    ``row`` must be as long as ``count`` rounded up to ``LANES``; all of it is written to.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        vector = ir.VectorType(_FLOAT, LANES)
        with cgutils.for_range_slice(builder, _LONG(0), args[1], _LONG(LANES), _LONG) as (at, _):
            place = builder.bitcast(builder.gep(data, [at]), vector.as_pointer())
            x = builder.load(place, align=4)
            above = builder.fcmp_ordered(">", x, constant(vector, 0.0))
            # Of numbers that are kept any exponential will do, but not infinity's.
            low = builder.select(above, constant(vector, 0.0), x)
            far = builder.fsub(exponential(builder, low), constant(vector, 1.0))
            near = constant(vector, 1 / 24)
            for coefficient in (1 / 6, 1 / 2, 1.0, 0.0):
                near = multiply_add(builder, near, low, constant(vector, coefficient))
            is_near = builder.fcmp_ordered(">", low, constant(vector, _NEAR_ZERO))
            below = builder.select(is_near, near, far)
            builder.store(builder.select(above, x, below), place, align=4)
        return context.get_dummy_value()

    return types.void(row, types.int64), generate


def exponential(builder: Any, x: Any) -> Any:
    """``exp`` of no positive numbers: a polynomial around the nearest power of two.

    Cephes' coefficients; relative error below 2e-7. NaN stays NaN, and what would be smaller than
    a normal number is zero.
    """
    vector = x.type
    tiny = builder.fcmp_ordered("<", x, constant(vector, _SMALLEST))
    bounded = builder.select(tiny, constant(vector, _SMALLEST), x)
    magic = constant(vector, 1.5 * 2**23)  # whose last bits are the rounded exponent's
    shifted = multiply_add(builder, bounded, constant(vector, 1.44269504088896341), magic)
    power = builder.fsub(shifted, magic)
    rest = multiply_add(builder, power, constant(vector, -0.693359375), bounded)
    rest = multiply_add(builder, power, constant(vector, 2.12194440e-4), rest)
    sum_ = constant(vector, 1.9875691500e-4)
    for coefficient in (
        1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1.0,
        1.0,
    ):  # fmt: skip
        sum_ = multiply_add(builder, sum_, rest, constant(vector, coefficient))
    ints = ir.VectorType(_INT, vector.count)
    exponent = builder.shl(builder.bitcast(shifted, ints), integers(ints, [23] * vector.count))
    exponent = builder.add(exponent, integers(ints, [127 << 23] * vector.count))
    value = builder.fmul(sum_, builder.bitcast(exponent, vector))
    return builder.select(tiny, constant(vector, 0.0), value)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, fused where the CPU can."""
    type_ = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.fmuladd.v{a.type.count}f32"
    function = cgutils.get_or_insert_function(builder.module, type_, name)
    return builder.call(function, [a, b, c])


def constant(vector: Any, value: float) -> Any:
    """A vector of equal floats."""
    return ir.Constant(vector, [ir.Constant(_FLOAT, value)] * vector.count)


def integers(vector: Any, values: Sequence[int]) -> Any:
    """A vector of integers."""
    return ir.Constant(vector, [ir.Constant(_INT, value) for value in values])
