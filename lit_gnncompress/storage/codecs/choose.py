"""The smallest codec that holds given codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from lit_gnncompress.kernels import pack_bits, quantize_pack, unpack_bits
from lit_gnncompress.kernels.layout import row_bytes, stream_bytes
from lit_gnncompress.quantization.finite import check_finite
from lit_gnncompress.quantization.sparse_rows import SparseRows
from lit_gnncompress.storage.codecs.base import Codec
from lit_gnncompress.storage.codecs.dense import DenseCodec
from lit_gnncompress.storage.codecs.sparse import (
    Entries,
    GapCodec,
    SparseCodec,
    gaps_of,
    narrow_dtype,
    scale_of_counts,
)

_BLOCK = 2**20  # codes that are unpacked at a time


def encode(
    x: Tensor | SparseRows,
    bits: int,
    lo: Tensor,
    scale: Tensor,
    *,
    by_column: bool = False,
    allow_gaps: bool = True,
) -> Codec:
    """Quantizes rows, rounded to nearest, into the smallest codec.

    At no time more than about a million codes are unpacked. Of sparse features whose zeros have
    code 0, the entries alone are looked at.

    Args:
        x: Floating-point features, shape ``(N, F)``.
        bits: Bits of a code.
        lo: Value of code 0, float32, shape ``(1,)``, ``(N,)``, or ``(F,)`` if ``by_column``.
        scale: Distance of two codes, float32, shape as ``lo``.
        by_column: Whether ``lo`` and ``scale`` are of columns.
        allow_gaps: Whether columns may be kept as gaps, which are smaller and slower to read.

    Raises:
        ValueError: Bits outside 1 to 8, features that are not finite, or ranges that do not fit.
    """
    if isinstance(x, SparseRows):
        x.check_finite("packed")
        found = _encode_entries(x, bits, lo, scale, by_column, allow_gaps)
        if found is not None:
            return found
    packed = torch.empty(len(x), row_bytes(x.size(1), bits), dtype=torch.uint8, device=x.device)
    zero, one = _no_range(x.device)
    for rows in _blocks(len(x), x.size(1)):
        block = x[rows].detach()
        check_finite(block, "packed", rows.start)
        if by_column:
            block = block if block.dtype == torch.float64 else block.float()
            block = torch.where(scale > 0, (block - lo) / scale, 0)
            packed[rows] = quantize_pack(block, zero, one, bits)
        else:
            own_lo, own_scale = (each if each.numel() == 1 else each[rows] for each in (lo, scale))
            packed[rows] = quantize_pack(block, own_lo, own_scale, bits)
    return _smallest(DenseCodec(packed, lo, scale, bits, x.size(1), by_column), allow_gaps)


def choose_codec(
    codes: Tensor,
    bits: int,
    lo: Tensor,
    scale: Tensor,
    *,
    by_column: bool = False,
    allow_gaps: bool = True,
) -> Codec:
    """The smallest codec that holds ``codes``, uint8 of shape ``(N, F)``; see :func:`encode`."""
    packed = pack_bits(codes, bits)
    return _smallest(DenseCodec(packed, lo, scale, bits, codes.size(1), by_column), allow_gaps)


def _smallest(dense: DenseCodec, allow_gaps: bool) -> Codec:
    if dense.num_rows == 0 or dense.width == 0:
        return dense
    counts, unit = _count(dense)
    return _if_smaller(dense, counts, unit, lambda: _entries(dense), allow_gaps) or dense


def _encode_entries(
    x: SparseRows, bits: int, lo: Tensor, scale: Tensor, by_column: bool, allow_gaps: bool
) -> Codec | None:
    """A sparse codec of the entries, where zeros have code 0 and it is smaller than a dense one."""
    zero, one = _no_range(x.device)
    if x.numel() == 0 or bool((lo <= -scale / 2).any()):
        return None
    codes = []
    for start in range(0, len(x.value), _BLOCK):
        some = slice(start, start + _BLOCK)
        group = (x.column if by_column else x.row)[some]
        own_lo, own_scale = (each if each.numel() == 1 else each[group] for each in (lo, scale))
        values = x.value[some].unsqueeze(1)
        if by_column:
            values = (values - own_lo.view(-1, 1)) / own_scale.view(-1, 1)
            own_lo, own_scale = zero, one
        codes.append(unpack_bits(quantize_pack(values, own_lo, own_scale, bits), bits, 1)[:, 0])
    code = torch.cat(codes) if codes else x.value.to(torch.uint8)
    stored = code > 0
    entries = Entries(x.row[stored], x.column[stored], code[stored], len(x))
    # What dense codes would take, without taking it.
    packed = code.new_zeros(1, 1).expand(len(x), row_bytes(x.size(1), bits))
    dense = DenseCodec(packed, lo, scale, bits, x.size(1), by_column)
    counts = torch.bincount(entries.row, minlength=len(x))
    low, high = (int(end) for end in entries.code.aminmax()) if len(entries.code) else (1, 1)
    unit = high if low == high else None
    return _if_smaller(dense, counts, unit, lambda: [entries], allow_gaps)


def _if_smaller(
    dense: DenseCodec,
    counts: Tensor,
    unit: int | None,
    entries: Callable[[], Iterable[Entries]],
    allow_gaps: bool,
) -> Codec | None:
    """The smallest sparse codec, if one is smaller than ``dense``.

    Args:
        dense: The same codes, or what has their size and ranges.
        counts: Codes of each row that are not zero.
        unit: The code that they are, if they are all the same.
        entries: Gives them.
        allow_gaps: Whether columns may be kept as gaps.
    """
    num_entries = int(counts.sum())
    pointers = (dense.num_rows + 1) * (4 if num_entries < 2**31 else 8)
    ranges = dense.nbytes - dense.packed.numel()
    derived = unit is not None and _is_derived(dense, counts, unit)
    if derived:
        ranges -= 4 * dense.scale.numel()
    values = stream_bytes(num_entries, dense.bits) if unit is None else 0
    least = pointers + ranges + values
    sizes: dict[type[SparseCodec], int] = {
        SparseCodec: least + num_entries * (2 if dense.width <= 2**16 else 4)
    }
    if allow_gaps and least + num_entries < min(dense.nbytes, sizes[SparseCodec]):
        besides = pointers if unit is None else 0
        if derived:
            besides += dense.num_rows * narrow_dtype(int(counts.max())).itemsize
        gap_bytes = sum(int(gaps_of(block)[1].sum()) for block in entries())
        sizes[GapCodec] = least + besides + gap_bytes
    kind = min(sizes, key=sizes.__getitem__)
    if sizes[kind] >= dense.nbytes:
        return None
    scale = None if derived else dense.scale
    return kind.of(entries(), dense.lo, scale, dense.bits, dense.width, unit, dense.by_column)


def _count(dense: DenseCodec) -> tuple[Tensor, int | None]:
    """Codes of each row that are not zero; and the one that they are, if they are all the same."""
    counts, low, high = [], 255, 0
    for rows in _blocks(dense.num_rows, dense.width):
        codes = unpack_bits(dense.packed[rows], dense.bits, dense.width)
        counts.append((codes != 0).sum(1))
        high = max(high, int(codes.max()))
        low = min(low, int((codes - 1).min()) + 1)  # zero becomes the highest
    return torch.cat(counts), max(1, high) if low >= high else None


def _is_derived(dense: DenseCodec, counts: Tensor, unit: int) -> bool:
    if dense.by_column:
        return False
    same = scale_of_counts(counts, unit) == dense.scale
    return bool((same | (counts == 0)).all())


def _entries(dense: DenseCodec) -> Iterator[Entries]:
    for rows in _blocks(dense.num_rows, dense.width):
        codes = unpack_bits(dense.packed[rows], dense.bits, dense.width)
        row, column = codes.nonzero(as_tuple=True)
        yield Entries(row, column, codes[row, column], codes.size(0))


def _blocks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _no_range(device: torch.device) -> tuple[Tensor, Tensor]:
    """Minimum and scale of features that are codes already."""
    zero = torch.zeros(1, device=device, dtype=torch.float32)
    return zero, zero + 1
