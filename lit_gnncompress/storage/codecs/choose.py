"""The smallest codec that holds given codes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lit_gnncompress.kernels import pack_bits, quantize_pack, unpack_bits
from lit_gnncompress.kernels.layout import row_bytes, stream_bytes
from lit_gnncompress.quantization.finite import check_finite
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
    x: Tensor,
    bits: int,
    lo: Tensor,
    scale: Tensor,
    *,
    by_column: bool = False,
    allow_gaps: bool = True,
) -> Codec:
    """Quantizes rows, rounded to nearest, into the smallest codec.

    At no time more than about a million codes are unpacked.

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
    packed = torch.empty(len(x), row_bytes(x.size(1), bits), dtype=torch.uint8, device=x.device)
    zero, one = (
        torch.zeros(1, device=x.device, dtype=torch.float32),
        torch.ones(1, device=x.device, dtype=torch.float32),
    )
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
    entries = int(counts.sum())
    pointers = (dense.num_rows + 1) * (4 if entries < 2**31 else 8)
    ranges = dense.nbytes - dense.packed.numel()
    derived = unit is not None and _is_derived(dense, counts, unit)
    if derived:
        ranges -= 4 * dense.scale.numel()
    values = stream_bytes(entries, dense.bits) if unit is None else 0
    least = pointers + ranges + values
    sizes: dict[type[SparseCodec], int] = {
        SparseCodec: least + entries * (2 if dense.width <= 2**16 else 4)
    }
    if allow_gaps and least + entries < min(dense.nbytes, sizes[SparseCodec]):
        besides = pointers if unit is None else 0
        if derived:
            besides += dense.num_rows * narrow_dtype(int(counts.max())).itemsize
        gap_bytes = sum(int(gaps_of(block)[1].sum()) for block in _entries(dense))
        sizes[GapCodec] = least + besides + gap_bytes
    kind = min(sizes, key=sizes.__getitem__)
    if sizes[kind] >= dense.nbytes:
        return dense
    scale = None if derived else dense.scale
    return kind.of(_entries(dense), dense.lo, scale, dense.bits, dense.width, unit, dense.by_column)


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
