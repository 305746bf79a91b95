"""Sparse rows for numba: their check, one row decoded, and added to rows of a dense matrix."""

# mypy: disable-error-code="no-untyped-def, assignment"
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lit_gnncompress.kernels.cpu import tiles
from lit_gnncompress.kernels.cpu.tiles import LANES, unpack_groups
from lit_gnncompress.kernels.layout import GAP


def checked_arrays(
    rowptr: Tensor, columns: Tensor, values: Tensor | None, first: Tensor | None, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """The tensors as arrays that can be read without looking; ``first`` is ``rowptr`` if None.

    Raises:
        ValueError: Pointers that fall or leave their array.
        IndexError: A column that does not exist.
    """
    pointers = rowptr.contiguous().numpy()
    places = columns.contiguous().numpy()
    codes = None if values is None else values.contiguous().numpy()
    before = pointers if first is None else first.contiguous().numpy()
    state = _state(rowptr, columns, first, width)
    if state is not None and _known.get(columns) == state:
        return pointers, places, codes, before
    _check_pointers("rowptr", pointers, len(places))
    if first is not None:
        _check_pointers("first", before, int(before[-1]))
    if places.dtype == np.uint8:
        row = _first_row_beyond(pointers, places, width)
        if row >= 0:
            raise IndexError(f"columns: the gaps of row {row} lead beyond the {width} of x.")
    elif len(places):
        # A negative number is a large one, too.
        unsigned = places.view(f"u{places.itemsize}")
        if unsigned.max() >= width:
            place = int(unsigned.argmax())
            raise IndexError(f"columns[{place}]={places[place]} is no column of 0 to {width - 1}.")
    if state is not None:
        _known[columns] = state
    return pointers, places, codes, before


_known = WeakIdKeyDictionary()  # columns that have been looked at, and in what state


def _state(rowptr: Tensor, columns: Tensor, first: Tensor | None, width: int) -> Any:
    """What tells whether arrays are those that were checked; ``None`` if writes are not counted."""
    tensors = [rowptr, columns] if first is None else [rowptr, columns, first]
    if any(tensor.is_inference() for tensor in tensors):
        return None
    return width, *((t.data_ptr(), t.numel(), t._version) for t in tensors)


def _check_pointers(name: str, pointers: np.ndarray, end: int) -> None:
    falls = pointers[1:] < pointers[:-1]
    if pointers[0] != 0 or pointers[-1] != end or falls.any():
        where = f"falls after row {int(falls.argmax())}" if falls.any() else "does not"
        raise ValueError(f"{name} must rise from 0 to {end}, the number of entries, but {where}.")


@njit(cache=True, nogil=True)
def _first_row_beyond(rowptr, gaps, width):
    """The first row whose gaps lead beyond ``width``, or −1."""
    for row in range(len(rowptr) - 1):
        total = 0
        for entry in range(rowptr[row], rowptr[row + 1]):
            total += np.int32(gaps[entry]) + np.int32(gaps[entry] < GAP)
        if total > width:
            return row
    return -1


@njit(cache=True, nogil=True)
def columns_of_gaps(columns, begin, end, out):
    """Columns of the codes in a row of gaps; returns their number."""
    count, cursor = np.uint64(0), np.int32(-1)  # unsigned: an index that numba need not check
    entry = begin
    while entry < end:
        if entry + LANES <= end:
            last = _columns_of_16_gaps(columns, entry, cursor, out, np.int64(count))
            if last >= 0:
                cursor = last
                count += np.uint64(LANES)
                entry += LANES
                continue
        until = min(entry + LANES, end)
        while entry < until:
            gap = np.int32(columns[entry])
            is_code = np.int32(gap < GAP)
            cursor += gap + is_code
            out[count] = cursor
            count += np.uint64(is_code)
            entry += 1
    return np.int64(count)


@tiles.emitted
def _columns_of_16_gaps(
    typingctx: Any, columns: Any, at: Any, cursor: Any, out: Any, out_at: Any
) -> Any:
    """The columns after ``cursor``; returns the last one, or −1 if a gap has no code."""
    signature = types.int32(columns, types.int64, types.int32, out, types.int64)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        words, lanes = tiles._WORDS, range(LANES)
        source = tiles._pointer(context, builder, sig, args, 0, 1)
        place = tiles._vector_at(builder, source, 0, ir.VectorType(tiles._BYTE, LANES))
        gaps = builder.zext(builder.load(place, align=1), words)
        total = builder.add(gaps, ir.Constant(words, [1] * LANES))
        zeros = ir.Constant(words, None)
        for step in (1, 2, 4, 8):  # sums of twice as many lanes each
            mask = [k - step if k >= step else LANES for k in lanes]
            shifted = builder.shuffle_vector(total, zeros, ir.Constant(words, mask))
            total = builder.add(total, shifted)
        total = builder.add(total, tiles._broadcast(builder, args[2], words))
        target = tiles._pointer(context, builder, sig, args, 3, 4)
        builder.store(total, tiles._vector_at(builder, target, 0, words), align=4)
        no_code = builder.icmp_unsigned("==", gaps, ir.Constant(words, [GAP] * LANES))
        some = builder.bitcast(no_code, ir.IntType(LANES))
        some = builder.icmp_unsigned("!=", some, ir.Constant(some.type, 0))
        last = builder.extract_element(total, ir.Constant(tiles._WORD, LANES - 1))
        return builder.select(some, ir.Constant(last.type, -1), last)

    return signature, generate


@njit(cache=True, nogil=True)
def most_codes(before, begin, end, step):
    """The most codes that ``step`` rows have together, from ``begin`` on."""
    most = 0
    for row in range(begin, end, step):
        most = max(most, before[min(row + step, end)] - before[row])
    return most


@njit(cache=True, nogil=True)
def codes_from(values, begin, count, bits, out):
    """Codes of a stream as floats; returns where in ``out`` the one numbered ``begin`` is.

    Sixteen codes begin at a whole byte: those are unpacked that the ``count`` wanted lie among.
    """
    group, offset = begin // LANES, begin % LANES
    groups = -(-(offset + count) // LANES)
    groups = max(0, min(groups, len(values) // (2 * bits) - group))
    unpack_groups(values, group * 2 * bits, out, 0, groups, bits)
    for k in range(LANES * groups, offset + count):
        bit = (group * LANES + k) * bits
        pair = np.int64(values[bit >> 3])
        if (bit & 7) + bits > 8:
            pair |= np.int64(values[(bit >> 3) + 1]) << 8
        out[k] = pair >> (bit & 7) & ((1 << bits) - 1)
    return offset


@tiles.emitted
def add_to_rows(
    typingctx: Any,
    columns: Any,
    at: Any,
    count: Any,
    stored: Any,
    codes: Any,
    codes_at: Any,
    matrix: Any,
    matrix_at: Any,
    row: Any,
    vectors: Any,
) -> Any:
    """``matrix[columns[at + k]] += codes[codes_at + k] · row`` for all k."""
    index = types.int64
    signature = types.void(columns, index, index, stored, codes, index, matrix, index, row, vectors)
    width = int(vectors.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = tiles._pointer(context, builder, sig, args, 0, 1)
        rows = tiles._pointer(context, builder, sig, args, 6, 7)
        codes_ptr = None
        if sig.args[3] is not types.none:
            codes_ptr = tiles._pointer(context, builder, sig, args, 4, 5)
        fma = tiles._declare_fma(builder)
        row_ptr = context.make_array(sig.args[8])(context, builder, args[8]).data
        addends = [
            builder.load(tiles._vector_at(builder, row_ptr, LANES * v), align=4)
            for v in range(width)
        ]

        def body(k: Any, sums: Any) -> list[Any]:
            column = builder.zext(builder.load(builder.gep(places, [k])), tiles._INDEX)
            column = builder.mul(column, ir.Constant(tiles._INDEX, LANES * width))
            target = builder.gep(rows, [column])
            code = None
            if codes_ptr is not None:
                code = builder.load(builder.gep(codes_ptr, [k]))
                code = tiles._broadcast(builder, code, tiles._FLOATS)
            for v, addend in enumerate(addends):
                place = tiles._vector_at(builder, target, LANES * v)
                total = builder.load(place, align=4)
                if code is None:
                    total = builder.fadd(total, addend)
                else:
                    total = builder.call(fma, [code, addend, total])
                builder.store(total, place, align=4)
            return []

        tiles._loop(builder, args[2], [], body)
        return context.get_dummy_value()

    return signature, generate
