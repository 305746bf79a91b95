"""Sparse rows reduced along edges: what is stored is read, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.threads import over_rows
from lit_gnncompress.kernels.layout import GAP


def sparse_aggregate(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    first: Tensor | None,
    edge_rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.sparse_aggregate`."""
    out = torch.zeros(edge_rowptr.size(0) - 1, width, dtype=torch.float32)
    if out.numel() == 0 or col.numel() == 0:
        return out
    heads = 1 if weight is None or weight.dim() == 1 else weight.size(1)
    over_rows(
        _max if reduce == "max" else _sum,
        edge_rowptr.numpy(),
        1 + columns.size(0) // (rowptr.size(0) - 1),
        rowptr.contiguous().numpy(),
        columns.contiguous().numpy(),
        None if values is None else values.contiguous().numpy(),
        lo.detach().contiguous().numpy(),
        scale.detach().contiguous().numpy(),
        bits,
        None if first is None else first.contiguous().numpy(),
        edge_rowptr.numpy(),
        col.numpy(),
        None if perm is None or weight is None else perm.numpy(),
        None if weight is None else weight.detach().contiguous().view(-1).numpy(),
        heads,
        reduce == "mean",
        out.numpy(),
    )
    return out


@njit(cache=True, nogil=True)
def _code(values: Any, place: Any, bits: int) -> Any:
    if values is None:
        return np.float32(1)
    bit = place * bits
    byte = bit >> 3
    pair = np.int64(values[byte])
    if byte + 1 < len(values):
        pair |= np.int64(values[byte + 1]) << 8
    return np.float32(pair >> (bit & 7) & ((1 << bits) - 1))


@njit(cache=True, nogil=True)
def _add_codes(
    source: Any,
    rowptr: Any,
    columns: Any,
    values: Any,
    bits: int,
    first: Any,
    factors: Any,
    channels: int,
    out: Any,
) -> None:
    """Adds the codes of a row to ``out``, those of head ``h`` times ``factors[h]``."""
    gaps = columns.itemsize == 1
    place = np.int64(rowptr[source] if first is None else first[source])
    cursor = np.int64(0)
    for entry in range(rowptr[source], rowptr[source + 1]):
        column = np.int64(columns[entry])
        if gaps:
            cursor += column
            if column == GAP:
                continue
            column = cursor
            cursor += 1
        head = 0 if len(factors) == 1 else column // channels
        out[column] += factors[head] * _code(values, place, bits)
        place += 1


@njit(cache=True, nogil=True)
def _set_factors(slot: int, perm: Any, weight: Any, factors: Any) -> None:
    if weight is None:
        return
    edge = np.int64(slot if perm is None else perm[slot])
    for head in range(len(factors)):
        factors[head] = weight[edge * len(factors) + head]


@njit(cache=True, nogil=True)
def _sum(
    begin_row: int,
    end_row: int,
    rowptr: Any,
    columns: Any,
    values: Any,
    lo: Any,
    scale: Any,
    bits: int,
    first: Any,
    edge_rowptr: Any,
    col: Any,
    perm: Any,
    weight: Any,
    heads: int,
    mean: bool,
    out: Any,
) -> None:
    channels = out.shape[1] // heads
    factors = np.ones(heads, dtype=np.float32)
    scaled = np.ones(heads, dtype=np.float32)
    offsets = np.zeros(heads, dtype=np.float32)
    for row in range(begin_row, end_row):
        begin, end = edge_rowptr[row], edge_rowptr[row + 1]
        offsets[:] = 0
        for slot in range(begin, end):
            source = np.int64(col[slot])
            _set_factors(slot, perm, weight, factors)
            low = lo[source if len(lo) > 1 else 0]
            step = scale[source if len(scale) > 1 else 0]
            for head in range(heads):
                scaled[head] = factors[head] * step
                offsets[head] += factors[head] * low
            _add_codes(source, rowptr, columns, values, bits, first, scaled, channels, out[row])
        share = np.float32(1)
        if mean and end > begin:
            share = np.float32(1) / np.float32(end - begin)
        for head in range(heads):
            for column in range(head * channels, (head + 1) * channels):
                out[row, column] = (out[row, column] + offsets[head]) * share


@njit(cache=True, nogil=True)
def _max(
    begin_row: int,
    end_row: int,
    rowptr: Any,
    columns: Any,
    values: Any,
    lo: Any,
    scale: Any,
    bits: int,
    first: Any,
    edge_rowptr: Any,
    col: Any,
    perm: Any,
    weight: Any,
    heads: int,
    mean: bool,
    out: Any,
) -> None:
    channels = out.shape[1] // heads
    one = np.ones(1, dtype=np.float32)
    factors = np.ones(heads, dtype=np.float32)
    codes = np.empty(out.shape[1], dtype=np.float32)
    for row in range(begin_row, end_row):
        begin, end = edge_rowptr[row], edge_rowptr[row + 1]
        for slot in range(begin, end):
            source = np.int64(col[slot])
            _set_factors(slot, perm, weight, factors)
            low = lo[source if len(lo) > 1 else 0]
            step = scale[source if len(scale) > 1 else 0]
            codes[:] = 0
            _add_codes(source, rowptr, columns, values, bits, first, one, channels, codes)
            for head in range(heads):
                for column in range(head * channels, (head + 1) * channels):
                    message = (codes[column] * step + low) * factors[head]
                    if slot == begin or not message <= out[row, column]:
                        out[row, column] = message
