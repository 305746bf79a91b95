"""Results of a comparison, and the confidence intervals that make claims of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.storage.ledger import Ledger


@dataclass(frozen=True)
class Interval:
    """A mean and the half-width of its 95 % confidence interval (Student's t)."""

    mean: float
    ci95: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Interval:
        """The interval of a sample; NaN wide where it has a single value."""
        values = list(values)
        mean = sum(values) / len(values)
        if len(values) == 1:
            return cls(mean, math.nan)
        variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
        quantile = stats.t.ppf(0.975, len(values) - 1)
        return cls(mean, float(quantile) * math.sqrt(variance / len(values)))

    def to_dict(self) -> dict[str, float | None]:
        """Plain numbers; ``None`` for NaN, which JSON does not have."""
        return {"mean": self.mean, "ci95": None if math.isnan(self.ci95) else self.ci95}


@dataclass(frozen=True)
class SeedResult:
    """Test metric of one seed: the same training, in full precision and quantized."""

    seed: int
    full_precision: float
    quantized: float
    epochs: int


@dataclass(frozen=True)
class Comparison:
    """What :func:`~lit_gnncompress.compare_by_seed` measured.

    Attributes:
        metric: Name of the test metric.
        results: One per seed.
        plan: The plan.
        ledger: Bytes under the plan, at the last test.
    """

    metric: str
    results: list[SeedResult]
    plan: BitPlan
    ledger: Ledger

    @property
    def full_precision(self) -> Interval:
        """The metric in full precision, over seeds."""
        return Interval.of(r.full_precision for r in self.results)

    @property
    def quantized(self) -> Interval:
        """The metric under the plan, over seeds."""
        return Interval.of(r.quantized for r in self.results)

    @property
    def delta(self) -> Interval:
        """Quantized minus full precision, paired by seed."""
        return Interval.of(r.quantized - r.full_precision for r in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return {
            "metric": self.metric,
            "seeds": [asdict(result) for result in self.results],
            "full_precision": self.full_precision.to_dict(),
            "quantized": self.quantized.to_dict(),
            "delta": self.delta.to_dict(),
            "plan": self.plan.to_dict(),
            "ledger": self.ledger.to_dict(),
        }
