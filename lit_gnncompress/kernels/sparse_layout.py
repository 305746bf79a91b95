"""How sparse rows lie in memory, and their checks.

Only the codes that are not zero are stored, in the order of rows and columns:

- ``rowptr`` ``(N + 1,)``, int64 or int32: the entries of row ``r`` are ``rowptr[r]`` to
  ``rowptr[r + 1] − 1`` of ``columns``.
- ``columns`` of uint16 or int32: the column of each code. Of uint8: gaps. A byte ``g`` below 255
  skips ``g`` columns from where the last one ended, a code follows; 255 skips as many columns and
  no code follows.
- ``values``: the codes, adjacent and little-endian, ``stream_bytes(codes, bits)`` bytes. Without
  them every stored code is 1.
- ``first`` ``(N + 1,)``, int64 or int32: the number of codes before each row. Only gaps with values
  need it; elsewhere it is ``rowptr``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.layout import GAP, check_bits, check_ranges, stream_bytes

POINTERS = (torch.int64, torch.int32)
COLUMNS = (torch.uint8, torch.uint16, torch.int32)


def check_sparse(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    first: Tensor | None = None,
) -> None:
    """The cheap checks, made at every call: dtypes, shapes, devices, and where pointers end.

    Raises:
        ValueError: Tensors that do not fit each other.
    """
    check_bits(bits)
    if width < 0:
        raise ValueError(f"width={width}: rows have 0 columns or more.")
    if columns.dtype not in COLUMNS or columns.dim() != 1:
        raise ValueError(
            "columns must be uint16 or int32 (columns) or uint8 (gaps), one-dimensional, got "
            f"{columns.dtype} of shape {tuple(columns.shape)}."
        )
    codes = columns.size(0)
    _check_pointers("rowptr", rowptr, columns, rowptr.size(0) if rowptr.dim() else 0, codes)
    rows = rowptr.size(0) - 1
    check_ranges(lo, scale, rows, columns)
    if values is None:
        return
    if values.dtype != torch.uint8 or values.dim() != 1 or values.device != columns.device:
        raise ValueError(
            f"values must be uint8, one-dimensional and on {columns.device}, got {values.dtype} "
            f"of shape {tuple(values.shape)} on {values.device}."
        )
    if columns.dtype == torch.uint8:
        if first is None:
            raise ValueError("first=None: gaps with values need the number of codes before a row.")
        codes = int(first[-1]) if first.numel() and not torch.compiler.is_compiling() else codes
        _check_pointers("first", first, columns, rows + 1, codes)
    elif first is not None:
        raise ValueError("first is for gaps only: leave it out, rowptr tells where codes begin.")
    if not torch.compiler.is_compiling() and values.size(0) != stream_bytes(codes, bits):
        raise ValueError(
            f"values has {values.size(0)} bytes, but {codes} codes of bits={bits} take "
            f"{stream_bytes(codes, bits)}."
        )


def validate_sparse(
    rowptr: Tensor, columns: Tensor, width: int, values: Tensor | None, first: Tensor | None
) -> None:
    """The thorough checks, made once: pointers that never fall, columns that rise within a row.

    Raises:
        ValueError: Naming what is wrong, and where.
    """
    _check_rising("rowptr", rowptr)
    if columns.numel() == 0:
        return
    if columns.dtype == torch.uint8:
        steps = columns.long() + (columns < GAP)
        total = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
        ends = total[rowptr.long()]
        _refuse((ends[1:] - ends[:-1]) > width, "columns", f"gaps lead beyond width={width} in row")
        if first is not None and values is not None:
            _check_rising("first", first)
            before = torch.cat([steps.new_zeros(1), (columns < GAP).cumsum(0)])[rowptr.long()]
            _refuse(before != first, "first", "it is not the number of codes before row")
        return
    wide = columns.to(torch.int32)
    _refuse((wide < 0) | (wide >= width), "columns", f"no column below width={width} at place")
    begins = torch.zeros(wide.size(0) + 1, dtype=torch.bool, device=wide.device)
    begins[rowptr.long()] = True
    _refuse((wide[1:] <= wide[:-1]) & ~begins[1:-1], "columns", "they must rise, but not at place")


def _check_pointers(name: str, pointers: Tensor, columns: Tensor, size: int, end: int) -> None:
    if pointers.dtype not in POINTERS or pointers.dim() != 1 or pointers.size(0) != max(1, size):
        raise ValueError(
            f"{name} must be int64 or int32 of shape (N + 1,), got {pointers.dtype} of shape "
            f"{tuple(pointers.shape)}."
        )
    if pointers.device != columns.device:
        raise ValueError(
            f"{name} is on {pointers.device}, columns is on {columns.device}: move one of them."
        )
    if torch.compiler.is_compiling():
        return
    ends = pointers[:: max(1, pointers.size(0) - 1)].tolist()
    if (ends[0], ends[-1]) != (0, end):
        raise ValueError(
            f"{name} runs from {ends[0]} to {ends[-1]}, but must run from 0 to {end}, the number "
            f"of entries."
        )


def _check_rising(name: str, pointers: Tensor) -> None:
    _refuse(pointers[1:] < pointers[:-1], name, "it must not fall, but does after row")


def _refuse(wrong: Tensor, name: str, what: str) -> None:
    if bool(wrong.any()):
        raise ValueError(f"{name}: {what} {int(wrong.nonzero()[0, 0])}.")
