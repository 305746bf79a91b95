"""A loop over spans of rows in the threads of OpenMP, none of which comes back to the interpreter.

A thread that calls a kernel from Python waits for the interpreter's lock, asleep: a launch takes 40
microseconds like that, of which a small kernel has no more to share.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch.utils.weak import WeakIdKeyDictionary

_intrinsic: Any = intrinsic  # called without its first argument, which no type tells

_BYTES = ir.IntType(8).as_pointer()
_COUNT, _INDEX = ir.IntType(32), ir.IntType(64)
_BODY = ir.FunctionType(ir.VoidType(), [_BYTES])
_RUN = ir.FunctionType(ir.VoidType(), [_BODY.as_pointer(), _BYTES, _COUNT, _COUNT])


def run_compiled(
    run: int, kernel: Any, spans: Sequence[tuple[int, int]], threads: int, *args: Any
) -> None:
    """Calls ``kernel(first, last, *args)`` for all spans, each taken by a thread that is free.

    Args:
        run: Address of ``GOMP_parallel``.
        kernel: Compiled by numba without the lock of the interpreter; returns nothing.
        spans: First row, and the one after the last.
        threads: How many work, the caller among them.
        args: What else the kernel takes.

    Raises:
        Exception: What a kernel raised.
    """
    bounds = np.array(spans, dtype=np.int64)
    failed = _loop(run, _address(kernel, args), bounds, threads, *args)
    if failed >= 0:
        kernel(*spans[failed], *args)  # raises it where it can be caught


_ADDRESSES = WeakIdKeyDictionary()  # of each kernel: by kinds of arguments


def _address(kernel: Any, args: tuple[Any, ...]) -> int:
    """Where the code of ``kernel`` for such arguments is."""
    known = _ADDRESSES.get(kernel)
    if known is None:
        known = _ADDRESSES[kernel] = {}
    kinds = _kinds(args)
    if kinds not in known:
        signature = (types.int64, types.int64, *(kernel.typeof_pyval(a) for a in args))
        kernel.compile(signature)
        result = kernel.overloads[signature]
        if result.signature.return_type != types.none:
            raise TypeError(f"{kernel} returns {result.signature.return_type}: who would take it?")
        known[kinds] = result.library.get_pointer_to_function(result.fndesc.llvm_func_name)
    return known[kinds]


def _kinds(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What numba tells versions of a kernel apart by, in less time."""
    return tuple(
        (a.dtype, a.ndim, a.flags.num)
        if isinstance(a, np.ndarray)
        else _kinds(a)
        if isinstance(a, tuple)
        else type(a)
        for a in args
    )


@njit(cache=True, nogil=True)
def _loop(run, kernel, bounds, threads, *args):
    """The number of a span where the kernel failed, or −1."""
    return _in_team(run, kernel, bounds, threads, args)


@_intrinsic
def _in_team(typingctx: Any, run: Any, kernel: Any, bounds: Any, threads: Any, args: Any) -> Any:
    """One parallel region, whose threads take spans by a counter that they share."""
    signature = types.int64(types.int64, types.int64, bounds, types.int64, args)

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        run, kernel, bounds, threads, args = values
        bounds = context.make_array(sig.args[2])(context, builder, bounds)
        count = builder.extract_value(bounds.shape, 0)
        args = _without_owners(context, builder, sig.args[4], args)
        fields = [kernel, bounds.data, count, _INDEX(0), _INDEX(-1), args]
        shared = cgutils.alloca_once(builder, ir.LiteralStructType([f.type for f in fields]))
        for place, field in enumerate(fields):
            builder.store(field, _field(builder, shared, place))
        body = _thread_body(context, builder.module, shared.type, sig.args[4])
        run = builder.inttoptr(run, _RUN.as_pointer())
        threads = builder.trunc(threads, _COUNT)
        builder.call(run, [body, builder.bitcast(shared, _BYTES), threads, _COUNT(0)])
        return builder.load(_field(builder, shared, 4))

    return signature, codegen


def _without_owners(context: Any, builder: Any, kinds: Any, args: Any) -> Any:
    """The same arrays, whose references nobody counts: threads would contend for the counters.

    The caller holds them as long as it waits.
    """
    for place, kind in enumerate(kinds):
        if isinstance(kind, types.Array):
            value = builder.extract_value(args, place)
            array = context.make_array(kind)(context, builder, value)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            args = builder.insert_value(args, array._getvalue(), place)
    return args


def _thread_body(context: Any, module: Any, shared_type: Any, args_type: Any) -> Any:
    """What each thread does: spans of rows, as long as some are left."""
    body = ir.Function(module, _BODY, module.get_unique_name("spans_of_rows"))
    body.linkage = "internal"
    builder = ir.IRBuilder(body.append_basic_block())
    shared = builder.bitcast(body.args[0], shared_type)
    kernel, bounds, count = (builder.load(_field(builder, shared, i)) for i in range(3))
    argument_types = (types.int64, types.int64, *args_type)
    kind = context.call_conv.get_function_type(types.none, argument_types)
    kernel = builder.inttoptr(kernel, kind.as_pointer())
    args = cgutils.unpack_tuple(builder, builder.load(_field(builder, shared, 5)))

    take, work, fail, end = (body.append_basic_block(n) for n in ("take", "work", "fail", "end"))
    builder.branch(take)
    builder.position_at_end(take)
    span = builder.atomic_rmw("add", _field(builder, shared, 3), _INDEX(1), "monotonic")
    builder.cbranch(builder.icmp_signed("<", span, count), work, end)
    builder.position_at_end(work)
    place = builder.gep(bounds, [builder.mul(span, _INDEX(2))])
    rows = [builder.load(builder.gep(place, [_INDEX(k)])) for k in range(2)]
    values = (*rows, *args)
    status, _ = context.call_conv.call_function(builder, kernel, types.none, argument_types, values)
    builder.cbranch(status.is_error, fail, take)
    builder.position_at_end(fail)
    builder.store(span, _field(builder, shared, 4))
    builder.store(count, _field(builder, shared, 3))  # the others stop, too
    builder.branch(end)
    builder.position_at_end(end)
    builder.ret_void()
    return body


def _field(builder: Any, shared: Any, place: int) -> Any:
    return builder.gep(shared, [_COUNT(0), _COUNT(place)])
