"""Loops over the edges of one node, a vector of heads for each: dropout, gradients of scores."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lit_gnncompress.kernels.cpu.attention_vector import load, node, splat, store, unpacked
from lit_gnncompress.kernels.cpu.coefficients import rounded
from lit_gnncompress.kernels.cpu.exponential import constant, integers, multiply_add

_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)


@intrinsic(prefer_literal=True)
def drop(typing, scratch, begin, end, perm, in_order, seed, threshold, kept, heads):
    """``scratch[k, h] *= kept``, or zero where the hash of ``attention_aggregate`` drops it.

    Args:
        typing: Of numba.
        scratch: A number for each edge and head.
        begin: First edge of the node.
        end: One after its last.
        perm: Place of each edge in the caller's order.
        in_order: Whether that order is the same, so that there is no ``perm``.
        seed: Of the hash, int64.
        threshold: Coefficients with a lower hash are dropped, uint32.
        kept: What the others are multiplied by.
        heads: Number of heads.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scratch, begin, end, perm, in_order, seed, threshold, kept, _ = unpacked(
            context, builder, signature, args
        )
        size = signature.args[-1].literal_value
        vector, stride = ir.VectorType(_FLOAT, size), _LONG(size)
        factor = splat(builder, kept, vector)
        with cgutils.for_range_slice(builder, begin, end, _LONG(1), _LONG) as (slot, _count):
            edge = _edge(builder, perm, in_order, slot)
            place = builder.mul(builder.sub(slot, begin), stride)
            value = builder.fmul(load(builder, scratch, place, vector), factor)
            dropped = _are_dropped(builder, edge, size, seed, threshold)
            store(builder, builder.select(dropped, constant(vector, 0.0), value), scratch, place)
        return context.get_dummy_value()

    return types.void(
        scratch, begin, end, perm, in_order, types.int64, types.uint32, types.float32, heads
    ), generate  # fmt: skip


@intrinsic(prefer_literal=True)
def sum_gradients(
    typing, alpha, products, scale, shift, gathered, own, col, begin, end, row, slope, total, heads
):  # fmt: skip
    """``total[h] = Σ_k alpha[k, h] · (products[k, h] · scale[h] − shift[h]) · slope``.

    The slope is that of the leaky ReLU where ``gathered[col[begin + k], h] + own[row, h]`` is no
    positive number, else 1.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        alpha, products, scale, shift, gathered, own, col, begin, end, row, slope, total, _ = (
            unpacked(context, builder, signature, args)
        )
        size = signature.args[-1].literal_value
        vector, stride = ir.VectorType(_FLOAT, size), _LONG(size)
        scale, shift = (load(builder, each, _LONG(0), vector) for each in (scale, shift))
        mine = load(builder, own, builder.mul(row, stride), vector)
        slope = splat(builder, slope, vector)
        sums = cgutils.alloca_once_value(builder, constant(vector, 0.0))
        with cgutils.for_range_slice(builder, begin, end, _LONG(1), _LONG) as (slot, _count):
            place = builder.mul(builder.sub(slot, begin), stride)
            source = builder.mul(node(builder, col, slot), stride)
            theirs = load(builder, gathered, source, vector)
            steep = _steepness(builder, builder.fadd(theirs, mine), slope)
            product = builder.fmul(load(builder, products, place, vector), scale)
            term = builder.fmul(load(builder, alpha, place, vector), builder.fsub(product, shift))
            builder.store(multiply_add(builder, term, steep, builder.load(sums)), sums)
        store(builder, builder.load(sums), total, _LONG(0))
        return context.get_dummy_value()

    return types.void(
        alpha, products, scale, shift, gathered, own, col, begin, end, row, slope, total, heads
    ), generate  # fmt: skip


@intrinsic(prefer_literal=True)
def lower(typing, scratch, gathered, col, begin, end, heads):
    """``scratch[k, h] -= gathered[col[begin + k], h]``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scratch, gathered, col, begin, end, _ = unpacked(context, builder, signature, args)
        size = signature.args[-1].literal_value
        vector, stride = ir.VectorType(_FLOAT, size), _LONG(size)
        with cgutils.for_range_slice(builder, begin, end, _LONG(1), _LONG) as (slot, _count):
            place = builder.mul(builder.sub(slot, begin), stride)
            theirs = load(builder, gathered, builder.mul(node(builder, col, slot), stride), vector)
            value = builder.fsub(load(builder, scratch, place, vector), theirs)
            store(builder, value, scratch, place)
        return context.get_dummy_value()

    return types.void(scratch, gathered, col, begin, end, heads), generate


@intrinsic(prefer_literal=True)
def gradients_of_source(
    typing, scratch, products, col, begin, end, row, own, gathered, slope, totals, scales, shifts,
    factors, coded, ranges, stride, drops, perm, in_order, seed, threshold, kept, grad, heads,
):  # fmt: skip
    """The gradient of a source's share in scores, and how much each target weighs it.

    Args:
        typing: Of numba.
        scratch: Exponentials of the edges; the weights take their place.
        products: Of the values with the gradients of sums.
        col: Target of each edge.
        begin: First edge of the source.
        end: One after its last.
        row: The source.
        own: Its share in the scores, as of all sources.
        gathered: Share of the targets.
        slope: Of the leaky ReLU below zero.
        totals: Sums of exponentials of the targets.
        scales: What products are multiplied by, of each target.
        shifts: What is taken off then.
        factors: What codes are multiplied by; negative where all edges of a target weigh alike.
        coded: Whether there are codes.
        ranges: Of these, see ``attention_aggregate``.
        stride: Between those of two targets, 0 if they share one.
        drops: Whether there is dropout, see ``drop`` for what follows.
        perm: See ``drop``.
        in_order: See ``drop``.
        seed: See ``drop``.
        threshold: See ``drop``.
        kept: See ``drop``.
        grad: The gradient goes to its row ``row``.
        heads: Number of heads.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (
            scratch, products, col, begin, end, row, own, gathered, slope, totals, scales, shifts,
            factors, coded, ranges, stride, drops, perm, in_order, seed, threshold, kept, grad, _,
        ) = unpacked(context, builder, signature, args)  # fmt: skip
        size = signature.args[-1].literal_value
        vector, width = ir.VectorType(_FLOAT, size), _LONG(size)
        slope, kept = (splat(builder, number, vector) for number in (slope, kept))
        result = builder.mul(row, width)
        mine, zero = load(builder, own, result, vector), constant(vector, 0.0)
        sums, weight, product = (cgutils.alloca_once_value(builder, zero) for _ in range(3))
        with cgutils.for_range_slice(builder, begin, end, _LONG(1), _LONG) as (slot, _count):
            place = builder.mul(builder.sub(slot, begin), width)
            target = node(builder, col, slot)
            theirs, total, scale, shift, factor = (
                load(builder, each, builder.mul(target, width), vector)
                for each in (gathered, totals, scales, shifts, factors)
            )
            alpha = builder.fdiv(load(builder, scratch, place, vector), total)
            builder.store(alpha, weight)
            builder.store(load(builder, products, place, vector), product)
            with builder.if_then(coded):
                at = builder.mul(target, stride)
                ends = [
                    builder.load(builder.gep(ranges, [builder.add(at, _LONG(end_))]))
                    for end_ in range(3)
                ]
                with builder.if_then(builder.fcmp_ordered(">=", ends[2], _FLOAT(0.0))):
                    range_ = (splat(builder, end_, vector) for end_ in ends)
                    by_code = builder.fmul(rounded(builder, alpha, *range_), factor)
                    alike = builder.fcmp_ordered("<", factor, zero)
                    by_code = builder.select(alike, builder.fsub(zero, factor), by_code)
                    builder.store(by_code, weight)
            with builder.if_then(drops):
                edge = _edge(builder, perm, in_order, slot)
                dropped = _are_dropped(builder, edge, size, seed, threshold)
                for pointer in (product, weight):
                    value = builder.fmul(builder.load(pointer), kept)
                    builder.store(builder.select(dropped, zero, value), pointer)
            term = builder.fsub(builder.fmul(builder.load(product), scale), shift)
            steep = _steepness(builder, builder.fadd(mine, theirs), slope)
            term = builder.fmul(alpha, term)
            builder.store(multiply_add(builder, term, steep, builder.load(sums)), sums)
            store(builder, builder.load(weight), scratch, place)
        store(builder, builder.load(sums), grad, result)
        return context.get_dummy_value()

    return types.void(
        scratch, products, col, begin, end, row, own, gathered, slope, totals, scales, shifts,
        factors, coded, ranges, stride, drops, perm, in_order, types.int64, types.uint32,
        types.float32, grad, heads,
    ), generate  # fmt: skip


def _steepness(builder: Any, score: Any, slope: Any) -> Any:
    """The derivative of the leaky ReLU."""
    below = builder.fcmp_ordered("<=", score, constant(score.type, 0.0))
    return builder.select(below, slope, constant(score.type, 1.0))


def _edge(builder: Any, perm: Any, in_order: Any, slot: Any) -> Any:
    """The edge's place in the caller's order."""
    edge = cgutils.alloca_once_value(builder, slot)
    with builder.if_then(builder.not_(in_order)):
        builder.store(node(builder, perm, slot), edge)
    return builder.load(edge)


def _are_dropped(builder: Any, edge: Any, heads: int, seed: Any, threshold: Any) -> Any:
    """Of each head, whether the hash of ``attention_aggregate`` is below the threshold."""
    words = ir.VectorType(_INT, heads)
    longs = ir.VectorType(_LONG, heads)
    lanes = ir.Constant(longs, [_LONG(head) for head in range(heads)])
    place = builder.add(splat(builder, builder.mul(edge, _LONG(heads)), longs), lanes)
    low = builder.trunc(place, words)
    high = builder.trunc(builder.lshr(place, ir.Constant(longs, [_LONG(32)] * heads)), words)
    of_seed = _mix(builder, builder.trunc(seed, _INT))
    of_seed = builder.xor(of_seed, builder.trunc(builder.lshr(seed, _LONG(32)), _INT))
    key = splat(builder, _mix(builder, of_seed), words)
    key = _mix(builder, builder.xor(key, high))
    hashed = _mix(builder, builder.xor(low, key))
    hashed = builder.lshr(hashed, integers(words, [8] * heads))
    return builder.icmp_unsigned("<", hashed, splat(builder, threshold, words))


def _mix(builder: Any, number: Any) -> Any:
    """One round of the hash, of a word or of a vector of them."""

    def word(value: int) -> Any:
        kind = number.type
        return integers(kind, [value] * kind.count) if hasattr(kind, "count") else kind(value)

    number = builder.xor(number, builder.lshr(number, word(16)))
    number = builder.mul(number, word(0x7FEB352D))
    number = builder.xor(number, builder.lshr(number, word(15)))
    number = builder.mul(number, word(0x846CA68B))
    return builder.xor(number, builder.lshr(number, word(16)))
