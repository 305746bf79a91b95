"""What is done to a row of floats before it is packed, while it lies in the cache."""

# mypy: disable-error-code="call-arg"
from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, uint32

from lit_gnncompress.kernels.activate_pack import ACTIVATIONS
from lit_gnncompress.kernels.cpu.code_groups import FLOAT32, quantize_row
from lit_gnncompress.kernels.cpu.exponential import apply_elu

_RELU, _ELU = ACTIVATIONS.index("relu"), ACTIVATIONS.index("elu")
_INFINITY = np.int32(0x7F800000)


@njit(cache=True, nogil=True, inline="always")
def finish_and_pack(
    row: int,
    values: Any,
    numbers: Any,
    address: int,
    width: int,
    bias: Any,
    residual: Any,
    activation: int,
    bits: int,
    lo: Any,
    scale: Any,
    ends: Any,
    numbers_of_ends: Any,
    packed: int,
    size: int,
    row_lo: Any,
    row_scale: Any,
) -> bool:
    """Adds to a row, activates and packs it; whether it is finite.

    Args:
        row: Its number.
        values: The row, float32, with room up to a multiple of ``LANES``; changed.
        numbers: The same memory as int32.
        address: Where it is.
        width: Columns.
        bias: What is added to each row, or ``None``.
        residual: Rows that are added, one after the other, or ``None``.
        activation: Its place among ``activate_pack.ACTIVATIONS``.
        bits: Bits of a code.
        lo: Value of code 0, float32, shape ``(1,)``; ``None`` where rows have their own.
        scale: Distance of two codes, likewise.
        ends: Scratch, float32, shape ``(2,)``.
        numbers_of_ends: The same memory as int32.
        packed: Address of the packed rows.
        size: Bytes of one.
        row_lo: The row's own value of code 0 goes there.
        row_scale: And its distance of two codes.

    The views are the caller's, made once: what counts references stays out of its loop, in which
    threads would wait for each other's.
    """
    levels = (1 << bits) - 1
    _add(values, width, bias, residual, row * width)
    _activate(values, width, activation)
    finite = _find_ends(numbers, width, numbers_of_ends)
    if lo is not None:
        low, step = lo[0], scale[0]
    else:
        low, step = ends[0], (ends[1] - ends[0]) / np.float32(levels)
        step = step if step > 0 else np.float32(1)
        row_lo[row], row_scale[row] = low, step
    quantize_row(
        packed + row * size, address, width, bits, FLOAT32, low, step,
        levels if step > 0 else 0, False, uint32(0), uint32(0), uint32(0),
    )  # fmt: skip
    return finite


@njit(cache=True, nogil=True, inline="always")
def _add(row: Any, width: int, bias: Any, residual: Any, place: int) -> None:
    """Adds the bias and ``residual[place:]``."""
    if bias is not None:
        for column in range(width):
            row[column] += bias[column]
    if residual is not None:
        for column in range(width):
            row[column] += residual[place + column]


@njit(cache=True, nogil=True, inline="always")
def _activate(row: Any, width: int, activation: int) -> None:
    if activation == _RELU:
        zero = np.float32(0)
        for column in range(width):
            row[column] = zero if row[column] < zero else row[column]
    elif activation == _ELU:
        apply_elu(row, width)


@njit(cache=True, nogil=True, inline="always")
def _find_ends(row: Any, width: int, ends: Any) -> bool:
    """Least and greatest of floats, all of them as integers; whether all are finite."""
    # Integers have nearly the order of floats, and vectors find their ends.
    least = most = _ordered(row[0])
    for column in range(width):
        number = _ordered(row[column])
        least = min(least, number)
        most = max(most, number)
    ends[0], ends[1] = _ordered(least), _ordered(most)
    return most < _INFINITY and least > ~_INFINITY


@njit(cache=True, nogil=True, inline="always")
def _ordered(number: Any) -> Any:
    """The bits of a float as an integer of the same order, and back."""
    return np.int32(number ^ ((number >> np.int32(31)) & np.int32(0x7FFFFFFF)))
