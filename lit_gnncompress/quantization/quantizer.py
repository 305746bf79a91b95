"""The linear quantizer: codes, rematching, and the straight-through gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lit_gnncompress.plan import FULL_PRECISION, near_matches
from lit_gnncompress.quantization.degrees import DegreeBuckets
from lit_gnncompress.quantization.ranges import (
    Granularity,
    Levels,
    Range,
    RangeMethod,
    clamp_codes_,
    find_range,
    step,
    wide,
)
from lit_gnncompress.quantization.sparse_rows import SparseRows

Rounding = Literal["nearest", "floor", "stochastic"]

_FLOOR_SLACK = 2**-12  # of a code: what lies on a code must not fall to the one below


@dataclass(frozen=True)
class Quantizer:
    r"""Linear quantization of node features (SGQuant, arXiv 2007.05100, section III).

    .. math:: q = \mathrm{round}((x - lo) / s), \quad s = (hi - lo) / (2^b - 1), \quad
        x' = s q + lo

    :math:`x'` are the rematched features; their gradient passes straight through to :math:`x`.
    Data whose smallest value is zero keep an exact zero under every range.

    Args:
        range: ``"minmax"``; ``"mse"``, the fraction 0.1, 0.15 … 1.0 of min/max with the least
            squared error; or ``"percentile"``. The latter two are decided on an evenly spaced
            sample of the rows, always the same one.
        granularity: Which values share a range: the whole ``"tensor"``, a degree ``"bucket"``, a
            ``"column"`` (of a bucket), a ``"row"``. ``"auto"`` shares by bucket, but gives rows a
            min/max range of their own where that lowers the squared error by more than the same
            bytes would if spent on the codes: row-normalised binary features become lossless.
        rounding: ``"nearest"``, ``"floor"`` (the paper's) or ``"stochastic"``. An input that
            recurs from step to step is rounded once, as if it were stored.
        percentile: Share of the values up to the upper end, for ``range="percentile"``.

    Raises:
        ValueError: An unknown choice, or a percentile outside (0.5, 1].

    Example:
        >>> x = torch.tensor([[0.0, 0.5], [0.25, 0.0]])
        >>> Quantizer(granularity="row")(x, bits=1)
        tensor([[0.0000, 0.5000],
                [0.2500, 0.0000]])
    """

    range: RangeMethod = "mse"
    granularity: Granularity = "auto"
    rounding: Rounding = "nearest"
    percentile: float = 0.99

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(
                    f"{name}={value!r} is none of {', '.join(choices)}."
                    f"{near_matches(str(value), choices)}"
                )
        if not 0.5 < self.percentile <= 1:
            raise ValueError(f"percentile={self.percentile} must lie in (0.5, 1].")

    def __call__(
        self, x: Tensor, bits: int | tuple[int, ...], buckets: DegreeBuckets | None = None
    ) -> Tensor:
        """Quantizes and rematches ``x``.

        Args:
            x: Floating-point features, shape ``(N, F)``.
            bits: Bits of all rows, or of each bucket.
            buckets: The bucket of each row; needed where there are several.

        Returns:
            The rematched features, with the shape and dtype of ``x``.

        Raises:
            ValueError: Bits outside 1–8 and 32, or bits by bucket without ``buckets``.
        """
        spent = {bits} if isinstance(bits, int) else {*bits}
        if x.numel() == 0 or spent == {FULL_PRECISION}:
            return x
        return self.apply(x, bits, buckets, self.find_range(x, bits, buckets))

    def find_range(
        self,
        x: Tensor | SparseRows,
        bits: int | tuple[int, ...],
        buckets: DegreeBuckets | None = None,
    ) -> Range:
        """The range of non-empty ``x``, which may be sparse; arguments as for a call."""
        if buckets is None:
            buckets = DegreeBuckets(torch.zeros(x.size(0), dtype=torch.long, device=x.device), 1)
        levels = _levels(bits, x)
        if isinstance(levels, Tensor) and buckets.num_buckets != len(levels):
            raise ValueError(
                f"bits={bits} are {len(levels)} for {buckets.num_buckets} bucket(s): give the "
                f"DegreeBuckets of the rows, with one number of bits for each."
            )
        return find_range(x, levels, buckets, self.range, self.granularity, self.percentile)

    def apply(
        self,
        x: Tensor,
        bits: int | tuple[int, ...],
        buckets: DegreeBuckets | None,
        range: Range,
    ) -> Tensor:
        """Quantizes and rematches ``x`` with a known range; arguments as for a call."""
        levels = _levels(bits, x)
        if isinstance(levels, Tensor):
            assert buckets is not None
            levels = levels[buckets.index].unsqueeze(1)
        out: Tensor = _StraightThrough.apply(x, range.lo, range.hi, levels, self.rounding)
        if not isinstance(bits, int) and FULL_PRECISION in bits and buckets is not None:
            kept = torch.tensor([b == FULL_PRECISION for b in bits], device=x.device)
            out = torch.where(kept[buckets.index].unsqueeze(1), x, out)
        return out


_CHOICES = {
    "range": get_args(RangeMethod),
    "granularity": get_args(Granularity),
    "rounding": get_args(Rounding),
}


def check_spent(bits: int | tuple[int, ...]) -> None:
    """Refuses bits that no site can spend.

    Raises:
        ValueError: Bits outside 1 to 8 and 32.
    """
    for b in (bits,) if isinstance(bits, int) else bits:
        if not 1 <= b <= 8 and b != FULL_PRECISION:
            raise ValueError(f"bits={b}: bits are 1 to 8, or {FULL_PRECISION} for untouched.")


def _levels(bits: int | tuple[int, ...], x: Tensor | SparseRows) -> Levels:
    """The highest code, by bucket where the buckets differ."""
    check_spent(bits)
    if not isinstance(bits, int):
        if len(set(bits)) > 1:
            # Rows at full precision are put back later; any code does for them.
            highest = [2.0 ** min(b, 8) - 1 for b in bits]
            return torch.tensor(highest, dtype=wide(x[:0]).dtype, device=x.device)
        bits = bits[0]
    return 2.0 ** min(bits, 8) - 1


class _StraightThrough(torch.autograd.Function):
    """Rounds to the codes and back; the gradient passes as if nothing had happened."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lo: Tensor, hi: Tensor, levels: Levels, rounding: str) -> Any:
        scale = step(lo, hi, levels)
        codes = wide(x).sub(lo).div_(scale)
        if rounding == "nearest":
            codes.round_()
        elif rounding == "floor":
            codes.add_(_FLOOR_SLACK).floor_()
        else:
            codes.add_(torch.rand_like(codes)).floor_()
        codes = clamp_codes_(codes, levels)
        return codes.mul_(scale).add_(lo).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad, None, None, None, None
