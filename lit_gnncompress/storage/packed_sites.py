"""A plan's sites in real bits: packed inputs, packed hidden features, no messages of E × F."""

from __future__ import annotations

import builtins
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from lit_gnncompress.kept import kept
from lit_gnncompress.kernels import activate_pack, aggregate_pack, quantize_pack
from lit_gnncompress.plan import FULL_PRECISION
from lit_gnncompress.quantization.degrees import DegreeBuckets
from lit_gnncompress.quantization.feature_site import FeatureSite
from lit_gnncompress.quantization.finite import check_finite
from lit_gnncompress.quantization.fused_attention import fuse_attention, unfuse_attention
from lit_gnncompress.quantization.quantize import Quantization
from lit_gnncompress.quantization.ranges import CalibratedRange, Range, step, wide
from lit_gnncompress.storage.codecs import Codec, DenseCodec, FloatCodec
from lit_gnncompress.storage.deferred import Aggregated, Deferred
from lit_gnncompress.storage.lossless import lossless_by_bucket
from lit_gnncompress.storage.node_rows import node_rows, plain
from lit_gnncompress.storage.pack import pack_with_range
from lit_gnncompress.storage.packed_tensor import PackedTensor
from lit_gnncompress.storage.tensor_types import VirtualTensor

_BLOCK_BYTES = 2**20  # of float32 features at a time, at least
_MOST_BLOCKS = 8  # each costs calls of kernels


class PackedForm:
    """What sites make of features: packed tensors in evaluation, message-free floats else."""

    def pack(
        self,
        x: Tensor,
        bits: tuple[int, ...],
        buckets: DegreeBuckets | None,
        range: Range | CalibratedRange,
    ) -> Tensor:
        """Packs rows block by block, so that a layer's float features never exist whole.

        A ``range`` that was found for these very rows packs them whole.

        Raises:
            ValueError: Features that are not finite.
        """
        if len(bits) == 1 or buckets is None:
            buckets = None
        if isinstance(range, Range):
            whole = x.materialize() if isinstance(x, Deferred) else x
            check_finite(whole, "packed")
            return pack_with_range(plain(whole), bits, buckets, range).before_a_site()
        if buckets is None and isinstance(x, Aggregated):
            codec = _pack_sums(x, bits[0], range)
            if codec is not None:
                x.release()
                return PackedTensor([codec]).before_a_site()
        num_rows, width = x.shape
        writers = [
            _Writer(own, width, range, b, x.device)
            for b, own in enumerate(bits if buckets is not None else bits[:1])
        ]
        after = x.usual_steps() if isinstance(x, Deferred) and buckets is None else None
        if not writers[0].activates:
            after = None
        size = max(_BLOCK_BYTES // (4 * max(1, width)), -(-num_rows // _MOST_BLOCKS), 1)
        for start in builtins.range(0, max(1, num_rows), size):
            stop = min(start + size, num_rows)
            if isinstance(x, Deferred) and after is not None:
                bias, residual, activation = after
                residual = residual if residual is None else residual[start:stop]
                finite = writers[0].write(plain(x.first(start, stop)), bias, residual, activation)
            else:
                rows = _rows_of(x, start, stop)
                finite = True
                for b, writer in enumerate(writers):
                    own = rows if buckets is None else rows[buckets.index[start:stop] == b]
                    finite = writer.write(own) and finite
            if not finite:
                check_finite(_rows_of(x, start, stop), "packed", start)
        if isinstance(x, Deferred):
            x.release()
        bucket = None if buckets is None else buckets.index.to(torch.uint8)
        return PackedTensor([writer.finish() for writer in writers], bucket).before_a_site()

    def stored(self, x: Tensor, waits: bool) -> Tensor:
        """The same codes; whether what layers make of them may wait for the next site."""
        if not isinstance(x, PackedTensor) or (x.again is not None) == waits:
            return x
        if waits:
            return x.before_a_site()
        same = PackedTensor(x.blocks, x.bucket)
        same.lossless = x.lossless
        return same

    def settle(self, output: Any) -> Any:
        """Works out what was waiting for a site."""

        def settled(value: Any) -> Any:
            return value.materialize() if isinstance(value, Deferred) else value

        return tree_map(settled, output)

    def rows(self, x: Tensor) -> Tensor:
        """Floats, aggregated without messages."""
        if isinstance(x, VirtualTensor) or x.dtype != torch.float32 or x.dim() != 2:
            return x
        return node_rows(x)


class _Writer:
    """The rows of one bucket, as they come."""

    def __init__(
        self, bits: int, width: int, range: CalibratedRange, bucket: int, device: torch.device
    ) -> None:
        self.bits, self.width = bits, width
        self._levels = 2.0 ** min(bits, 8) - 1
        self._by_row = bool(range.by_row[bucket if len(range.by_row) > 1 else 0])
        place = bucket if range.lo.size(0) > 1 else 0
        self._lo, self._scale = _codes_of(range, place, self._levels, device)
        self._kept: list[Tensor] = []
        self._ranges: list[tuple[Tensor, Tensor]] = []  # of rows
        self.activates = (
            device.type == "cpu"
            and bits != FULL_PRECISION
            and width > 0
            and (self._by_row or self._lo.numel() == 1)
        )

    def write(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        activation: str = "none",
    ) -> bool:
        """Appends rows; whether they are finite.

        What is to be done to them before is for a writer that :attr:`activates`.
        """
        lo, scale = self._lo, self._scale
        if self.activates and x.dtype == torch.float32:
            ranges = (None, None) if self._by_row else (lo, scale)
            packed, row_lo, row_scale, all_finite = activate_pack(
                x, self.bits, bias, residual, activation, *ranges
            )
            self._kept.append(packed)
            if self._by_row:
                self._ranges.append((row_lo, row_scale))
            return bool(all_finite)
        finite = bool(torch.isfinite(x).all())
        if self.bits == FULL_PRECISION:
            self._kept.append(x.to(torch.float32, copy=True))
            return finite
        if self._by_row:
            low, high = wide(x).amin(1), wide(x).amax(1)
            lo, scale = low.float(), step(low, high, self._levels).float()
            self._ranges.append((lo, scale))
        elif lo.numel() > 1:
            x = wide(x).sub(lo).div_(scale)
            lo, scale = x.new_zeros(1), x.new_ones(1)
        self._kept.append(quantize_pack(x, lo, scale, self.bits))
        return finite

    def finish(self) -> Codec:
        """All rows."""
        rows = _joined(self._kept)
        if self.bits == FULL_PRECISION:
            return FloatCodec(rows)
        lo, scale = self._lo, self._scale
        if self._by_row:
            lo, scale = (_joined(ends) for ends in zip(*self._ranges, strict=True))
        by_column = not self._by_row and lo.numel() > 1
        return DenseCodec(rows, lo, scale, self.bits, self.width, by_column)


def _pack_sums(x: Aggregated, bits: int, range: CalibratedRange) -> Codec | None:
    """Packs sums over edges as they are made, if one kernel does all that is done to them."""
    after, source, weight = x.usual_steps(), x.source, x.weight
    by_row = bool(range.by_row[0])
    if (
        after is None
        or bits == FULL_PRECISION
        or x.reduce == "max"
        or x.dim() != 2
        or x.size(1) == 0
        or x.device.type != "cpu"
        or isinstance(source, VirtualTensor)
        or (weight is not None and weight.dim() > 1)
        or not (by_row or range.lo.numel() == 1)
    ):
        return None
    lo, scale = (None, None) if by_row else _codes_of(range, 0, 2.0**bits - 1, x.device)
    packed, row_lo, row_scale, finite = aggregate_pack(
        source, x.adjacency, bits, weight, x.reduce, *after, lo, scale
    )
    if not finite:
        check_finite(plain(x.materialize()), "packed")
    if lo is not None and scale is not None:
        row_lo, row_scale = lo, scale
    return DenseCodec(packed, row_lo, row_scale, bits, x.size(1))


def _codes_of(
    range: CalibratedRange, place: int, levels: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What a bucket's codes stand for: the range of a site serves all its forward passes."""
    key = ("codes", place, levels, device)
    make = functools.partial(_shared_codes, range, place, levels, device)
    return kept(range.lo, key, make)


def _shared_codes(
    range: CalibratedRange, place: int, levels: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Value of code 0 and distance of two codes, for one bucket."""
    lo, hi = (ends[place].to(device, torch.float32, copy=True) for ends in (range.lo, range.hi))
    return lo, step(lo, hi, levels)


def _rows_of(x: Tensor, start: int, stop: int) -> Tensor:
    return plain(x.rows(start, stop) if isinstance(x, Deferred) else x[start:stop])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def use_packed_form(quantization: Quantization, packed: bool = True) -> None:
    """Makes sites keep real bits and layers send no messages of E × F, or undoes that."""
    quantization.use_form(PackedForm() if packed else None)
    (fuse_attention if packed else unfuse_attention)(quantization.module)


def is_packable(quantization: Quantization, x: Tensor) -> bool:
    """Whether sites read ``x`` in the latest forward pass, all with the same bits."""
    return _reader_of(quantization, x) is not None


def _reader_of(
    quantization: Quantization, x: Tensor
) -> tuple[FeatureSite, DegreeBuckets | None] | None:
    readers = [
        (site, seen.buckets)
        for site in quantization.sites
        for seen in site.seen
        if isinstance(site, FeatureSite) and seen.source is not None and seen.source() is x
    ]
    if len({(site.bits, site.quantizer) for site, _ in readers}) != 1:
        return None
    site, buckets = readers[0]
    return None if set(site.bits) == {FULL_PRECISION} else (site, buckets)


def packed_input(
    quantization: Quantization,
    x: Tensor,
    whole: Tensor | None = None,
    degrees: Tensor | None = None,
) -> PackedTensor | None:
    """An input in the codes of the sites that read it; ``None`` where they do not agree.

    Args:
        quantization: A plan at work.
        x: Input of the latest forward pass.
        whole: Features of all nodes, where ``x`` is a sample of them.
        degrees: Degree of each row of ``whole``, for a plan with degree buckets.
    """
    reader = _reader_of(quantization, x)
    if reader is None:
        return None
    site, buckets = reader
    features = x
    if whole is not None:
        features, splits = whole, quantization.context.splits
        buckets = None if degrees is None else DegreeBuckets.from_degrees(degrees, splits)
    if len(site.bits) > 1 and buckets is None:
        return None
    found = site.quantizer.find_range(features, site.bits, buckets)
    packed = pack_with_range(features, site.bits, buckets, found)
    packed.lossless = lossless_by_bucket(features, buckets)
    return packed
