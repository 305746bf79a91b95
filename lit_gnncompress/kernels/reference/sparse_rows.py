"""Plain torch: the codes of sparse rows, with their places."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.layout import GAP


def stored_codes(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    bits: int,
    first: Tensor | None = None,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and code of what is stored in the rows ``index``, in their order.

    Returns:
        Three int64 tensors of shape ``(K,)``; rows are counted within ``index``.
    """
    rowptr = rowptr.long()
    if index is None:
        index = torch.arange(rowptr.size(0) - 1, device=rowptr.device)
    sizes = rowptr[index + 1] - rowptr[index]
    row = torch.repeat_interleave(torch.arange(index.size(0), device=rowptr.device), sizes)
    begin = sizes.cumsum(0) - sizes  # of each row among the entries taken
    within = torch.arange(row.size(0), device=rowptr.device) - begin[row]
    entry = rowptr[index][row] + within
    if columns.dtype != torch.uint8:
        # uint16 has no indexing: its bits as int16 do.
        narrow = columns.view(torch.int16) if columns.dtype == torch.uint16 else columns
        column = narrow[entry].long()
        column = column & 0xFFFF if columns.dtype == torch.uint16 else column
        place = entry
    else:
        gap = columns[entry].long()
        is_code = gap < GAP
        column = _cumsum_within(gap + is_code, row, begin) - 1
        place = _cumsum_within(is_code.long(), row, begin) - 1
        if first is not None:
            place = place + first.long()[index][row]
        row, column, place = row[is_code], column[is_code], place[is_code]
    return row, column, _codes_at(place, values, bits)


def _cumsum_within(steps: Tensor, row: Tensor, begin: Tensor) -> Tensor:
    """Running sums that begin anew in every row."""
    before = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    return before[1:] - before[begin][row]


def _codes_at(place: Tensor, values: Tensor | None, bits: int) -> Tensor:
    if values is None:
        return torch.ones_like(place)
    bit = place * bits
    padded = torch.cat([values, values.new_zeros(2)]).long()
    pair = padded[bit >> 3] | padded[(bit >> 3) + 1] << 8
    return pair >> (bit & 7) & 2**bits - 1
