"""Settings that ``dlrm_quality`` tries."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.click_tables import NAMES, Kind
from benchmarks.click_training import Setting

Decays = tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    """What is tried on a data set.

    Attributes:
        settings: Of each kind.
        tuning_seeds: Seeds that choose among them.
        repeats: Seeds of a test for each that is asked for: few rows tell little.
    """

    settings: dict[Kind, tuple[Setting, ...]]
    tuning_seeds: int
    repeats: int

    @classmethod
    def of(
        cls,
        lr: float,
        std: float,
        full: Decays,
        tt: Decays,
        others: Decays,
        seeds: int,
        repeats: int,
    ) -> Plan:
        """A plan that tries a few weight decays for each kind.

        Learning rate and start made little difference in fits of tuning seeds, a wrong decay makes
        more than one table does.
        """
        decays: dict[Kind, Decays] = dict.fromkeys(NAMES, others)
        decays |= {"full": full, "tt": tt, "tt+hot": tt}
        settings = {
            kind: tuple(Setting(lr, decay, std) for decay in own) for kind, own in decays.items()
        }
        return cls(settings, seeds, repeats)


PLANS = {
    "Criteo10k": Plan.of(0.003, 0.1, (0.01, 0.1), (1e-3, 3e-3), (0.01, 0.1), seeds=3, repeats=2),
    "Frappe": Plan.of(0.01, 0.02, (3e-4, 1e-3), (1e-4, 3e-4), (1e-4, 3e-4), seeds=1, repeats=1),
}
