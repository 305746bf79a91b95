"""Chosen sparse rows to floating-point rows."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.layout import check_index
from lit_gnncompress.kernels.library import define
from lit_gnncompress.kernels.sparse_layout import check_sparse


def sparse_gather_dequantize(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    index: Tensor | None = None,
    first: Tensor | None = None,
) -> Tensor:
    """Rows ``lo + scale * code``, with code 0 where none is stored.

    Args:
        rowptr: Where rows begin in ``columns``, int64 or int32, shape ``(N + 1,)``.
        columns: Columns of the stored codes, uint16 or int32; or the gaps between them, uint8,
            see ``kernels.sparse_layout``.
        values: The stored codes, packed; 1 each if ``None``.
        lo: Value of code 0, float32, shape ``(1,)`` or ``(N,)``.
        scale: Distance of two codes, float32, shape ``(1,)`` or ``(N,)``.
        bits: Bits of a code.
        width: Columns of a row, ``F``.
        index: Rows to take, int64 or int32, shape ``(M,)``; all rows if ``None``.
        first: Codes before each row, for gaps with ``values``.

    Returns:
        float32, shape ``(M, F)``.

    Raises:
        ValueError: Bits outside 1 to 8, pointers that do not run from 0 to the number of entries,
            or tensors that do not fit each other.
        IndexError: An index that is no row.
    """
    check_sparse(rowptr, columns, values, lo, scale, bits, width, first)
    if index is not None:
        check_index(index, rowptr.size(0) - 1, columns)
    return _sparse_gather_dequantize(rowptr, columns, values, lo, scale, bits, width, index, first)


def _fake(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    index: Tensor | None,
    first: Tensor | None,
) -> Tensor:
    rows = rowptr.size(0) - 1 if index is None else index.size(0)
    return scale.new_empty(rows, width)


_sparse_gather_dequantize = define(
    "sparse_gather_dequantize(Tensor rowptr, Tensor columns, Tensor? values, Tensor lo, "
    "Tensor scale, int bits, int width, Tensor? index, Tensor? first) -> Tensor",
    _fake,
    folders={"CUDA": "reference"},
)
