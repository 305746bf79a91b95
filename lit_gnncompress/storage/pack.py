"""Features to packed features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_gnncompress.plan import FULL_PRECISION, checked_bits, checked_splits
from lit_gnncompress.quantization.degrees import DegreeBuckets
from lit_gnncompress.quantization.finite import check_finite
from lit_gnncompress.quantization.quantizer import Quantizer
from lit_gnncompress.quantization.ranges import Granularity, Range, RangeMethod, step
from lit_gnncompress.quantization.sparse_rows import SparseRows
from lit_gnncompress.storage.codecs import Codec, FloatCodec, encode
from lit_gnncompress.storage.packed_tensor import PackedTensor


def pack(
    x: Tensor,
    bits: int | Sequence[int] = 8,
    *,
    degrees: Tensor | None = None,
    degree_splits: Sequence[int] = (),
    range: RangeMethod = "mse",
    granularity: Granularity = "auto",
    percentile: float = 0.99,
) -> PackedTensor:
    """Stores node features in 1 to 8 bits.

    The codes are those of :class:`~lit_gnncompress.quantization.Quantizer`, rounded to nearest;
    of the ways to store them (dense, sparse, sparse with gap-coded columns) the smallest is taken.

    Args:
        x: Features, floating point, shape ``(N, F)``; a sparse tensor of any layout gives what its
            ``to_dense()`` would, which is never made.
        bits: Bits of all rows, or of each degree bucket, lowest degrees first; 32 keeps float32,
            densely.
        degrees: Degree of each node, int64 of shape ``(N,)``; needed for bits by bucket.
        degree_splits: Degrees between the buckets, one fewer than ``bits``.
        range: How the range of values is found; this and the next two as for the Quantizer.
        granularity: Which values share a range.
        percentile: Share of the values inside a percentile range.

    Returns:
        A tensor that stands where ``x`` stood; ``dequantize()`` gives what its codes stand for.

    Raises:
        TypeError: Features that are no floating-point matrix, or bits that are no integers.
        ValueError: Bits outside 1 to 8 and 32, features that are not finite or span more than
            float32 holds, or buckets that ``degrees`` and ``degree_splits`` do not fit.

    Example:
        >>> x = pack(torch.rand(1000, 64), bits=4)
        >>> x.shape, x.packed_bytes < 1000 * 64
        (torch.Size([1000, 64]), True)
    """
    _check_features(x)
    splits = checked_splits(degree_splits)
    spent = checked_bits("bits", bits, len(splits) + 1)
    by_bucket = (spent,) if isinstance(spent, int) else spent
    buckets = _buckets(x, by_bucket, degrees, splits)
    rows = x if x.layout == torch.strided else SparseRows.of(x)
    if isinstance(rows, SparseRows):
        rows.check_finite("packed")
    else:
        check_finite(rows, "packed")
    quantizer = Quantizer(range, granularity, "nearest", percentile)
    per_bucket = by_bucket if len(by_bucket) > 1 else by_bucket[0]
    found = quantizer.find_range(rows, per_bucket, buckets) if x.numel() else None
    if found is not None and not torch.isfinite(found.hi.float() - found.lo.float()).all():
        most = max(abs(float(rows.amin())), abs(float(rows.amax())))
        raise ValueError(f"x spans more than float32 can hold, up to {most:.3g}: scale it.")
    return pack_with_range(rows, by_bucket, buckets, found)


def pack_with_range(
    x: Tensor | SparseRows,
    bits: tuple[int, ...],
    buckets: DegreeBuckets | None,
    range: Range | None,
) -> PackedTensor:
    """Packs ``x`` with ranges that are known already, see :func:`pack`."""
    if buckets is None or len(bits) == 1:
        return PackedTensor([_block(x, bits[0], range, None, 0)])
    blocks = []
    for bucket, own_bits in enumerate(bits):
        rows = (buckets.index == bucket).nonzero().squeeze(1)
        own = x[rows] if isinstance(x, Tensor) else x.take(rows)
        blocks.append(_block(own, own_bits, range, rows, bucket))
    return PackedTensor(blocks, buckets.index.to(torch.uint8))


def _check_features(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}: give a tensor, as by torch.from_numpy.")
    if isinstance(x, PackedTensor):
        raise TypeError(f"x is packed already, in {x.bits} bits: give the features as they were.")
    if not x.is_floating_point() or x.dim() != 2:
        raise TypeError(
            f"x is {x.dtype} of shape {tuple(x.shape)}: give floating-point features (N, F)."
        )


def _block(
    x: Tensor | SparseRows, bits: int, range: Range | None, rows: Tensor | None, bucket: int
) -> Codec:
    """The rows of one bucket."""
    if bits == FULL_PRECISION:
        return FloatCodec(x[:].float())
    if range is None or x.numel() == 0:
        zero = torch.zeros(1, device=x.device, dtype=torch.float32)
        return encode(x[:].float(), bits, zero, zero + 1)
    lo, hi = range.lo, range.hi
    if rows is not None and lo.size(0) > 1:
        lo, hi = lo[rows], hi[rows]
    by_row = bool(range.by_row[bucket if len(range.by_row) > 1 else 0])
    if not by_row:  # one range for the rows, or one for each of their columns
        lo, hi = lo[:1], hi[:1]
    scale = step(lo, hi, 2.0**bits - 1)
    if lo.size(1) > 1:
        return encode(x, bits, lo.squeeze(0).float(), scale.squeeze(0).float(), by_column=True)
    return encode(x, bits, lo.squeeze(1).float(), scale.squeeze(1).float())


def _buckets(
    x: Tensor, bits: tuple[int, ...], degrees: Tensor | None, splits: Sequence[int]
) -> DegreeBuckets | None:
    if len(bits) == 1:
        return None
    if degrees is None:
        raise ValueError(
            f"bits={list(bits)} are for {len(bits)} degree buckets: give degrees, one for each row."
        )
    if degrees.shape != x.shape[:1]:
        raise ValueError(f"degrees has shape {tuple(degrees.shape)}, but x has {len(x)} rows.")
    return DegreeBuckets.from_degrees(degrees, splits)
