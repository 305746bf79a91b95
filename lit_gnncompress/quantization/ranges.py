"""Ranges: which values of a feature matrix map to the ends of the code."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lit_gnncompress.quantization.degrees import DegreeBuckets
from lit_gnncompress.quantization.sparse_rows import SparseRows

RangeMethod = Literal["mse", "minmax", "percentile"]
Granularity = Literal["auto", "tensor", "bucket", "column", "row"]
Levels = float | Tensor
"""Highest code, 2^bits − 1: one number, or shape ``(B,)`` for the B degree buckets."""

RANGE_BITS = 64
"""What a range costs: minimum and scale in fp32."""

_CLIP_FRACTIONS = tuple(0.1 + 0.05 * i for i in range(19))  # 0.1 … 1.0
_SAMPLE_SIZE = 2**15  # elements that decide on an MSE or percentile range
_MIN_SAMPLE_ROWS = 16
_ROW_BLOCK = 2**20  # elements whose rows find their ranges at a time


class Range(NamedTuple):
    """What maps to the ends of the code.

    Attributes:
        lo: Value of code 0; shape ``(N, 1)``, ``(1, 1)``, ``(N, F)`` or ``(1, F)``.
        hi: Value of the highest code; shape as ``lo``.
        by_row: bool, shape ``(B,)``: the buckets whose rows have ranges of their own.
    """

    lo: Tensor
    hi: Tensor
    by_row: Tensor

    def calibrated(self, buckets: DegreeBuckets | None) -> CalibratedRange:
        """The same for other features of the same layer, as far as rows share it."""
        count = len(self.by_row)
        lo, hi = self.lo.detach(), self.hi.detach()
        if buckets is not None and count > 1 and lo.size(0) == len(buckets):
            rows = torch.stack([(buckets.index == b).int().argmax() for b in range(count)])
            lo, hi = lo[rows], hi[rows]  # an empty bucket gets the range of the first row
        return CalibratedRange(lo[:count].clone(), hi[:count].clone(), self.by_row.clone())


class CalibratedRange(NamedTuple):
    """A range that is known before the features are: what inference needs.

    Attributes:
        lo: Value of code 0; shape ``(B, 1)`` or ``(B, F)``, or with 1 for the B degree buckets.
        hi: Value of the highest code; shape as ``lo``.
        by_row: bool, shape ``(B,)``: the buckets whose rows find their own minimum and maximum.
    """

    lo: Tensor
    hi: Tensor
    by_row: Tensor

    def of(self, x: Tensor, buckets: DegreeBuckets | None) -> Range:
        """The range of the rows of ``x``, shape ``(N, F)``."""
        lo, hi = (ends.to(x.device) for ends in (self.lo, self.hi))
        by_row = self.by_row.to(x.device)
        if buckets is not None:
            lo, hi = _spread(lo, buckets), _spread(hi, buckets)
        if by_row.any():
            own = by_row.unsqueeze(1) if buckets is None else _spread(by_row.unsqueeze(1), buckets)
            row_lo, row_hi = (wide(ends) for ends in _minmax(x.detach(), dim=1))
            lo, hi = torch.where(own, row_lo, lo), torch.where(own, row_hi, hi)
        return Range(lo, hi, by_row)

    def to_dict(self) -> dict[str, list]:
        """Plain lists, for JSON and checkpoints."""
        return {name: value.tolist() for name, value in self._asdict().items()}

    @classmethod
    def from_dict(cls, ends: dict[str, list]) -> CalibratedRange:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: Ends that are missing, not finite, or the wrong way round.
        """
        try:
            lo, hi = (torch.tensor(ends[name], dtype=torch.float32) for name in ("lo", "hi"))
            by_row = torch.tensor(ends["by_row"], dtype=torch.bool)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"A calibrated range is lo, hi and by_row, got {ends!r}.") from error
        fits = lo.shape == hi.shape and lo.dim() == 2 and by_row.dim() == 1
        if not fits or not torch.isfinite(lo).all() or not torch.isfinite(hi).all():
            raise ValueError(f"A calibrated range has finite ends of one shape, got {ends!r}.")
        if bool((hi < lo).any()):
            place = (hi < lo).nonzero()[0].tolist()
            raise ValueError(
                f"A calibrated range has its maximum {hi[tuple(place)]:.4g} below its minimum "
                f"{lo[tuple(place)]:.4g} in bucket {place[0]}."
            )
        return cls(lo, hi, by_row)


@torch.no_grad()
def find_range(
    x: Tensor | SparseRows,
    levels: Levels,
    buckets: DegreeBuckets,
    method: RangeMethod,
    granularity: Granularity,
    percentile: float,
) -> Range:
    """The range of non-empty features ``x`` of shape ``(N, F)``.

    The arguments are those of :class:`~lit_gnncompress.quantization.Quantizer`, which explains
    them. Half-precision features get an fp32 range.
    """
    x = x.detach()
    by_row = torch.zeros(buckets.num_buckets, dtype=torch.bool, device=x.device)
    if granularity == "row":
        return Range(*_row_range(x, levels, buckets, method, percentile), ~by_row)
    levels = levels.unsqueeze(1) if isinstance(levels, Tensor) else levels
    rows = sample_rows(x, buckets)
    if granularity == "column":
        # (B, F, K): every column of every bucket on its own
        values = rows.transpose(1, 2)
        levels = levels.unsqueeze(1) if isinstance(levels, Tensor) else levels
        lo, hi = (m.unsqueeze(2) for m in _column_minmax(x, buckets))
    else:
        # (B, K·F): all values of a bucket together
        values = rows.flatten(1)
        if buckets.num_buckets == 1:
            lo, hi = wide(x.amin()).view(1, 1), wide(x.amax()).view(1, 1)
        else:
            lo, hi = _bucket_minmax(*_minmax(x, dim=1), buckets)

    shares = None
    if granularity == "tensor":
        lo, hi = lo.amin(0, keepdim=True), hi.amax(0, keepdim=True)
        shares = (buckets.counts() / len(buckets)).unsqueeze(1)
    lo, hi = _narrowed(values, lo, hi, levels, method, percentile, shares)

    if granularity == "column":
        lo, hi = lo.squeeze(2), hi.squeeze(2)
    if granularity == "auto":
        by_row = _rows_pay(rows, lo, hi, levels)
    lo, hi = _spread(lo, buckets), _spread(hi, buckets)
    on_host = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if granularity != "auto" or (on_host and not by_row.any()):
        return Range(lo, hi, by_row)
    own = _spread(by_row.unsqueeze(1), buckets)
    row_lo, row_hi = (wide(m) for m in _minmax(x, dim=1))
    return Range(torch.where(own, row_lo, lo), torch.where(own, row_hi, hi), by_row)


def rematch(x: Tensor, lo: Tensor, hi: Tensor, levels: Levels) -> Tensor:
    """``x`` rounded to the nearest code and back; the arguments broadcast."""
    scale = step(lo, hi, levels)
    codes = x.sub(lo).div_(scale).round_()
    return clamp_codes_(codes, levels).mul_(scale).add_(lo)


def clamp_codes_(codes: Tensor, levels: Levels) -> Tensor:
    """Clips ``codes`` to 0 … ``levels``, in place where it can be."""
    if isinstance(levels, Tensor):
        return torch.minimum(codes.clamp_(min=0), levels)
    return codes.clamp_(0, levels)


def step(lo: Tensor, hi: Tensor, levels: Levels) -> Tensor:
    """The distance of two codes; 1 where the range is a point, so that nothing divides by 0."""
    scale = (hi - lo) / levels
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def wide(x: Tensor) -> Tensor:
    """``x`` in the precision that codes are computed in: fp32, or fp64 for doubles."""
    return x if x.dtype == torch.float64 else x.float()


def sample_rows(x: Tensor | SparseRows, buckets: DegreeBuckets) -> Tensor:
    """Evenly spaced rows of every bucket, shape ``(B, K, F)``."""
    per_bucket = _SAMPLE_SIZE // max(1, buckets.num_buckets * x.size(1))
    per_bucket = min(max(_MIN_SAMPLE_ROWS, per_bucket), x.size(0))
    return wide(x[buckets.sample(per_bucket)])


def _narrowed(
    values: Tensor,
    lo: Tensor,
    hi: Tensor,
    levels: Levels,
    method: RangeMethod,
    percentile: float,
    shares: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Narrows min/max ``(…, 1)`` by the ``values`` ``(…, M)`` that share it.

    ``shares`` ``(B, 1)`` joins the B groups of values, which may differ in levels, in one range.
    """
    if method == "percentile":
        if shares is not None:
            values = values.reshape(1, -1)
        last = values.size(-1)
        high = values.kthvalue(max(1, round(percentile * last)), dim=-1, keepdim=True).values
        low = values.kthvalue(max(1, round((1 - percentile) * last)), dim=-1, keepdim=True).values
        # A minimum of zero is the zero of a ReLU and of sparse features: it stays exact.
        return torch.where(lo == 0, lo, low), torch.where(hi == 0, hi, high)
    if method == "minmax":
        return lo, hi
    fractions = torch.tensor(_CLIP_FRACTIONS, dtype=lo.dtype, device=lo.device)
    fractions = fractions.view(-1, *[1] * lo.dim())
    los = torch.where(lo >= 0, lo, torch.where(hi <= 0, hi - fractions * (hi - lo), fractions * lo))
    his = torch.where(hi <= 0, hi, torch.where(lo >= 0, lo + fractions * (hi - lo), fractions * hi))
    error = (rematch(values, los, his, levels) - values).square_().mean(-1, keepdim=True)
    if shares is not None:
        error = (error * shares).sum(1, keepdim=True)
    best = error.argmin(0, keepdim=True)
    return (ends.expand_as(error).gather(0, best)[0] for ends in (los, his))  # type: ignore


def _rows_pay(rows: Tensor, lo: Tensor, hi: Tensor, levels: Levels) -> Tensor:
    """Buckets where a range per row lowers the error by more than its bytes would in the codes.

    A bit more per code lowers the squared error 4-fold, and a range costs ``RANGE_BITS`` per row.

    Args:
        rows: Sampled rows, shape ``(B, K, F)``.
        lo: Shared minimum, shape ``(B, 1)``.
        hi: Shared maximum, shape ``(B, 1)``.
        levels: Highest code, a number or of shape ``(B, 1)``.
    """
    lo, hi = lo.unsqueeze(2), hi.unsqueeze(2)
    levels = levels.unsqueeze(2) if isinstance(levels, Tensor) else levels
    row_lo, row_hi = _minmax(rows, dim=2)
    shared, own = (
        (rematch(rows, *ends, levels) - rows).square_().mean((1, 2))
        for ends in ((lo, hi), (row_lo, row_hi))
    )
    return own < shared * 4 ** (-RANGE_BITS / rows.size(2))


def _row_range(
    x: Tensor | SparseRows,
    levels: Levels,
    buckets: DegreeBuckets,
    method: RangeMethod,
    percentile: float,
) -> tuple[Tensor, Tensor]:
    """A range for every row, found a block of rows at a time: ``mse`` tries 19 of each."""
    if isinstance(levels, Tensor):
        levels = levels[buckets.index].unsqueeze(1)
    ends, rows = [], max(1, _ROW_BLOCK // x.size(1))
    for start in range(0, x.size(0), rows):
        block = wide(x[start : start + rows])
        own = levels[start : start + rows] if isinstance(levels, Tensor) else levels
        lo, hi = _minmax(block, dim=1)
        ends.append(torch.cat([*_narrowed(block, lo, hi, own, method, percentile)], dim=1))
    lo, hi = torch.cat(ends).split(1, dim=1)
    return lo, hi


def _minmax(x: Tensor | SparseRows, dim: int) -> tuple[Tensor, Tensor]:
    # Two passes, which are vectorised: 5 times faster on a CPU than torch.aminmax.
    return x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)


def _column_minmax(x: Tensor | SparseRows, buckets: DegreeBuckets) -> tuple[Tensor, Tensor]:
    """Minima and maxima ``(B, F)`` of the columns of the buckets."""
    if isinstance(x, Tensor):
        return _bucket_minmax(x, x, buckets)
    found = [x.take((buckets.index == b).nonzero()[:, 0]) for b in range(buckets.num_buckets)]
    none = x.value.new_zeros(x.size(1))
    ends = [_minmax(own, dim=0) if len(own) else (none, none) for own in found]
    lo, hi = (torch.stack([pair[end].view(-1) for pair in ends]) for end in (0, 1))
    return lo, hi


def _bucket_minmax(row_lo: Tensor, row_hi: Tensor, buckets: DegreeBuckets) -> tuple[Tensor, Tensor]:
    """Minima and maxima ``(B, C)`` of the buckets, from those of the rows ``(N, C)``."""
    row_lo, row_hi = wide(row_lo), wide(row_hi)
    if buckets.num_buckets == 1:
        return row_lo.amin(0, keepdim=True), row_hi.amax(0, keepdim=True)
    index = buckets.index.unsqueeze(1).expand_as(row_lo)
    empty = row_lo.new_zeros(buckets.num_buckets, row_lo.size(1))
    return (
        empty.scatter_reduce(0, index, row_lo, "amin", include_self=False),
        empty.scatter_reduce(0, index, row_hi, "amax", include_self=False),
    )


def _spread(per_bucket: Tensor, buckets: DegreeBuckets) -> Tensor:
    """Values of the buckets ``(B, C)`` for every row: ``(N, C)``, or ``(1, C)`` to broadcast."""
    return per_bucket if per_bucket.size(0) == 1 else per_bucket[buckets.index]
