"""The ledger: bytes of every site, as the paper counts and as they must be kept."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from lit_gnncompress.kept import kept
from lit_gnncompress.kernels.layout import row_bytes
from lit_gnncompress.plan import FULL_PRECISION
from lit_gnncompress.quantization.context import Seen, Stored
from lit_gnncompress.quantization.feature_site import FeatureSite
from lit_gnncompress.quantization.quantize import AnySite, Quantization
from lit_gnncompress.storage.lossless import lossless_by_bucket
from lit_gnncompress.storage.pack import pack_with_range

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class LedgerRow:
    """One degree bucket of one site.

    Attributes:
        site: Name of the layer.
        component: ``"features"`` or ``"attention"``.
        degrees: Degrees in the bucket, as text; empty for a plan without buckets.
        rows: Nodes, or attention coefficients (edges).
        width: Columns: features, or heads.
        bits: Bits of a code; 32 for untouched values.
        bytes_codes: Codes, and what finds them in a sparse codec.
        bytes_ranges: Minima and scales in fp32; a minimum of zero is not stored.
        bytes_lossless: Smallest exact size, where the input is known; else that in fp32.
    """

    site: str
    component: str
    degrees: str
    rows: int
    width: int
    bits: int
    bytes_codes: int
    bytes_ranges: int
    bytes_lossless: int

    @property
    def bytes_fp32(self) -> int:
        """Size before quantization."""
        return _FLOAT_BYTES * self.rows * self.width

    @property
    def bytes_real(self) -> int:
        """Size of what must be kept: codes and ranges."""
        return self.bytes_codes + self.bytes_ranges


@dataclass(frozen=True)
class Ledger:
    """Bytes of all sites, for the matrices that passed them last.

    Features are counted at every layer that they enter, which is what backward keeps of them; a
    layer that is called several times, at each call of a training step, or of a forward pass
    without gradients (a compiled one, at its last). In mini-batch training the rows are those of
    the last batch.

    Attributes:
        rows: One entry per site and bucket.
        bytes_buckets: Bucket of each node, one byte; zero for a plan without buckets.
    """

    rows: list[LedgerRow] = field(default_factory=list)
    bytes_buckets: int = 0

    @property
    def bytes_fp32(self) -> int:
        """Features and attention in fp32."""
        return sum(row.bytes_fp32 for row in self.rows)

    @property
    def bytes_real(self) -> int:
        """All that must be kept: codes, ranges, buckets, attention."""
        return sum(row.bytes_real for row in self.rows) + self.bytes_buckets

    @property
    def bytes_lossless(self) -> int:
        """The same without any loss: the smallest exact size of inputs, all else in fp32."""
        return sum(row.bytes_lossless for row in self.rows)

    @property
    def average_bits(self) -> float:
        """Bits of a feature, on average over the elements of all sites."""
        elements = [row.rows * row.width for row in self._features]
        bits = [row.rows * row.width * row.bits for row in self._features]
        return sum(bits) / max(1, sum(elements))

    @property
    def saving_paper_count(self) -> float:
        """fp32 over codes, of features alone and without ranges: the count of SGQuant."""
        return FULL_PRECISION / self.average_bits if self.average_bits else 1.0

    @property
    def saving_real(self) -> float:
        """fp32 over all that must be kept."""
        return self.bytes_fp32 / max(1, self.bytes_real) if self.rows else 1.0

    @property
    def _features(self) -> list[LedgerRow]:
        return [row for row in self.rows if row.component == "features"]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        rows = [
            asdict(row) | {"bytes_fp32": row.bytes_fp32, "bytes_real": row.bytes_real}
            for row in self.rows
        ]
        totals = (
            "average_bits", "saving_paper_count", "saving_real",
            "bytes_fp32", "bytes_real", "bytes_lossless", "bytes_buckets",
        )  # fmt: skip
        return {name: getattr(self, name) for name in totals} | {"rows": rows}


def ledger_of(quantization: Quantization) -> Ledger:
    """The ledger of the matrices that passed the sites of ``quantization`` last.

    Inputs that recur from step to step count as what packing them takes, in the smallest codec for
    their codes. Sites that nothing has passed are missing: run a forward pass first.

    Args:
        quantization: A plan at work.
    """
    splits = quantization.context.splits
    rows: list[LedgerRow] = []
    nodes = 0
    for site in quantization.sites:
        for seen in site.seen:
            by_degree = seen.buckets is not None
            for bucket, stored in enumerate(_stored(site, seen)):
                rows.append(
                    LedgerRow(
                        site=site.site.name,
                        component=site.site.component,
                        degrees=_degrees(bucket, splits) if by_degree else "",
                        rows=stored.rows,
                        width=seen.shape[1],
                        bits=stored.bits,
                        bytes_codes=stored.bytes_codes,
                        bytes_ranges=stored.bytes_ranges,
                        bytes_lossless=stored.bytes_lossless
                        or _FLOAT_BYTES * stored.rows * seen.shape[1],
                    )
                )
            if isinstance(site, FeatureSite) and by_degree:
                nodes = max(nodes, seen.shape[0])
    return Ledger(rows, nodes)


def _stored(site: AnySite, seen: Seen) -> tuple[Stored, ...]:
    """What the buckets of one matrix take."""
    if seen.stored is not None:
        return seen.stored
    source = None if seen.source is None else seen.source()
    if source is not None and not source.is_inference():
        counts = () if seen.buckets is None else tuple(seen.buckets.counts().tolist())
        key = ("stored", site.bits, site.quantizer, counts)
        return kept(source, key, functools.partial(_packed, site, seen, source))
    return _in_order(site, seen)


def _packed(site: AnySite, seen: Seen, source: Tensor) -> tuple[Stored, ...]:
    """An input's buckets in the smallest codecs."""
    exact = lossless_by_bucket(source, seen.buckets)
    if seen.range is None:
        stored = _in_order(site, seen)
    else:
        stored = pack_with_range(source, site.bits, seen.buckets, seen.range).stored
    return tuple(s._replace(bytes_lossless=size) for s, size in zip(stored, exact, strict=True))


def _in_order(site: AnySite, seen: Seen) -> tuple[Stored, ...]:
    """The buckets of features that change, which are stored code after code."""
    width = seen.shape[1]
    counts = [seen.shape[0]] if seen.buckets is None else seen.buckets.counts().tolist()
    rows = []
    for bucket, count in enumerate(counts):
        bits = site.bits[bucket]
        if bits == FULL_PRECISION:
            size = _FLOAT_BYTES * count * width
        elif isinstance(site, FeatureSite):
            size = count * row_bytes(width, bits)
        else:  # attention is read in order, and needs no row to start anew
            size = -(-count * width * bits // 8)
        ranges = 0 if bits == FULL_PRECISION else _range_bytes(seen, bucket, count)
        rows.append(Stored(bits, count, size, ranges))
    return tuple(rows)


def _range_bytes(seen: Seen, bucket: int, count: int) -> int:
    """Scales, and minima where they are not all zero."""
    if count == 0 or seen.range is None:
        return 0
    if seen.ranges is not None:  # of receiving nodes, from zero
        return _FLOAT_BYTES * seen.ranges[bucket if len(seen.ranges) > 1 else 0]
    shared_by_buckets = seen.buckets is not None and len(seen.range.lo) == 1
    if shared_by_buckets and bucket > 0:
        return 0
    lo, _, by_row = seen.range
    by_row_here = bool(by_row[bucket if len(by_row) > 1 else 0])
    ranges = count if by_row_here else lo.size(1)
    if seen.buckets is not None and lo.size(0) > 1:
        lo = lo[seen.buckets.index == bucket]
    return ranges * _FLOAT_BYTES * (2 if bool((lo != 0).any()) else 1)


def _degrees(bucket: int, splits: tuple[int, ...]) -> str:
    if bucket == len(splits):
        return f"{splits[-1]}+"
    low = splits[bucket - 1] if bucket else 0
    return f"{low}–{splits[bucket] - 1}" if splits[bucket] - 1 > low else str(low)
