"""The search: asks for measurements, and is told what they found."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.search.cost_model import CostModel, Evidence, Proposer, RandomProposer
from lit_gnncompress.search.space import Point, Space, check_choice
from lit_gnncompress.search.starting_points import starting_points
from lit_gnncompress.search.trials import Measurement, Stage, Trial, TrialFile

Mode = Literal["min", "max"]
Method = Literal["model", "random"]
Measure = Callable[[BitPlan], float]

_HALVING = 4  # of a batch, one in so many plans is fine-tuned
_HOPELESS = 0.1  # of the full-precision score; fine-tuning does not bring such a drop back
_SLACK = 1e-9  # a drop that equals the bound is within it


class Job(NamedTuple):
    """Something to measure.

    Attributes:
        stage: Full precision (the plan is empty then), or a plan without or with fine-tuning.
        number: The trial; -1 for full precision.
        plan: The plan.
        seed: What to seed the measurement with. All but fine-tuning share one, so that what they
            draw is the same.
    """

    stage: Stage
    number: int
    plan: BitPlan
    seed: int

    @staticmethod
    def seed_of(stage: Stage, number: int, seed: int) -> int:
        """Seed of a job of a search with ``seed``."""
        if stage != "finetuned":
            return seed
        return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        space: The space.
        baseline: Score in full precision.
        best: Of the trials within the bound, the one with the largest saving; ``None`` where there
            is none.
        trials: All trials.
        max_drop: The bound.
        mode: Whether the score is best at its ``"min"`` or ``"max"``.
        overhead: Seconds that each iteration took besides measuring.
    """

    space: Space
    baseline: float
    best: Trial | None
    trials: list[Trial]
    max_drop: float
    mode: Mode
    overhead: list[float]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return {
            "baseline": self.baseline,
            "max_drop": self.max_drop,
            "mode": self.mode,
            "count": self.space.count,
            "best": None if self.best is None else self.best.to_dict(),
            "trials": [trial.to_dict() for trial in self.trials],
        }


class Search:
    """A search that someone else measures for: ask for jobs, tell what they found.

    The jobs of an answer can be measured in any order and at the same time. They depend on the
    arguments and on earlier results alone, so that a search whose file is at hand goes on where
    it was cut off and ends with the same trials.

    Args:
        space: The space.
        max_drop: How much of the score may be lost, in its own unit: 0.004 of an accuracy.
        mode: Whether the score is best at its ``"min"`` or ``"max"``.
        trials: Plans that are measured at most. Fewer where no better plan is left.
        recipe: A plan by hand to start from.
        finetune: Whether plans can be measured with fine-tuning. Those of a batch that save more
            than the best so far, miss the bound and come nearest to it are, one in four; and in
            the end the best plan.
        n_measured: Plans in a batch; the cost model learns after each.
        n_sampled: Plans that the cost model predicts for each batch.
        n_iterations: Batches at most; as many as ``trials`` allow by default.
        seed: Seed of all that is drawn.
        method: ``"model"``, or ``"random"`` for random search from nowhere.
        path: File that keeps measurements, see :class:`TrialFile`; ``None`` for none.
        about: What else tells this search from another, for instance its model, as plain values.

    Raises:
        ValueError: Numbers that are out of range, or a file of another search.
    """

    def __init__(
        self,
        space: Space,
        max_drop: float = 0.004,
        mode: Mode = "max",
        trials: int = 40,
        recipe: BitPlan | None = None,
        finetune: bool = False,
        n_measured: int = 8,
        n_sampled: int = 500,
        n_iterations: int | None = None,
        seed: int = 0,
        method: Method = "model",
        path: str | Path | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        check_choice("mode", mode, get_args(Mode))
        check_choice("method", method, get_args(Method))
        check_numbers(max_drop, trials, n_measured, n_sampled, n_iterations, seed)
        self.space, self.max_drop, self.mode = space, max_drop, mode
        self.seed = seed
        if n_iterations is not None:
            trials = min(trials, n_iterations * n_measured)
        self._most, self._batch = trials, n_measured
        self._finetune, self._recipe, self._method = finetune, recipe, method
        self._n_sampled = n_sampled
        settings = {
            "max_drop": max_drop,
            "mode": mode,
            "recipe": None if recipe is None else recipe.to_dict(),
            "finetune": finetune,
            "n_measured": n_measured,
            "n_sampled": n_sampled,
            "seed": seed,
            "method": method,
        }
        whole = {"space": space.describe(), "settings": settings, "about": about or {}}
        self._file = TrialFile(path, whole)
        self._points: list[tuple[Point, str]] = []  # of the trials, in their order
        self._found: dict[tuple[Stage, int], Measurement] = {}
        self._asked: list[Job] = []
        self._stages = self._run()
        self.overhead: list[float] = []

    # --- asking and telling -----------------------------------------------------------------

    def ask(self) -> list[Job]:
        """What is to be measured next; empty when the search has ended.

        Raises:
            ValueError: A file whose trials are not those of this search.
        """
        while True:
            missing = [job for job in self._asked if (job.stage, job.number) not in self._found]
            missing = [job for job in missing if not self._replayed(job)]
            if missing:
                return missing
            asked = next(self._stages, None)
            if asked is None:
                self._asked = []
                return []
            self._asked = asked

    def tell(self, job: Job, score: float, seconds: float = 0.0) -> None:
        """Keeps what a job found.

        Args:
            job: The job.
            score: The score; one that is not finite is that of a trial that diverged.
            seconds: How long it took.
        """
        found = Measurement(float(score) if math.isfinite(score) else None, seconds)
        if job.stage == "baseline" and found.score is None:
            raise ValueError(
                f"The score in full precision is {score}: there is nothing to compare plans with. "
                f"Did training diverge?"
            )
        self._found[job.stage, job.number] = found
        self._file.append(job.stage, job.number, self._point_of(job.number), found)

    def _replayed(self, job: Job) -> bool:
        known = self._file.known.get((job.stage, job.number))
        if known is None:
            return False
        point, found = known
        if point != self._point_of(job.number):
            raise ValueError(
                f"{self._file.path}: trial {job.number} has the bits {list(point)}, where this "
                f"search asks for {list(self._point_of(job.number))}. The file is of another "
                f"version of the library or its dependencies: delete it to start anew."
            )
        self._found[job.stage, job.number] = found
        return True

    def _point_of(self, number: int) -> Point:
        return () if number < 0 else self._points[number][0]

    # --- stages -----------------------------------------------------------------------------

    def _run(self) -> Iterator[list[Job]]:
        """Jobs that belong together, each time the earlier ones are known."""
        yield [Job("baseline", -1, BitPlan(), self.seed)]
        proposer = self._proposer()
        queue = [] if self._method == "random" else self._starting_points()
        for iteration in range(math.ceil(self._most / self._batch)):
            start = time.perf_counter()
            batch, queue = queue[: self._batch], queue[self._batch :]
            batch += self._proposed(proposer, self._batch - len(batch), iteration)
            self.overhead.append(time.perf_counter() - start)
            first = len(self._points)
            self._points += batch[: self._most - first]
            numbers = range(first, len(self._points))
            yield [self._job("measured", number) for number in numbers]
            if self._finetune:
                yield [self._job("finetuned", number) for number in self._deserving(numbers)]
            if not batch or (self._method == "model" and self.best is None):
                break  # nothing better is left; or even the highest bits lose too much
        best = self.best
        if self._finetune and best is not None and best.finetuned is None:
            yield [self._job("finetuned", best.number)]

    def _job(self, stage: Stage, number: int) -> Job:
        plan = self.space.plan(self._point_of(number))
        return Job(stage, number, plan, Job.seed_of(stage, number, self.seed))

    def _proposer(self) -> Proposer:
        if self._method == "random":
            return RandomProposer(self.space, self.seed)
        scale = 1e-3 * max(abs(self.baseline), 1e-6)
        return CostModel(self.space, self.max_drop, self.seed, self._n_sampled, scale)

    def _starting_points(self) -> list[tuple[Point, str]]:
        points = list(starting_points(self.space, self._recipe, self._batch))
        missing = -len(points) % self._batch
        seen = [Evidence(point, False, 0.0) for point, _ in points]
        drawn = RandomProposer(self.space, self.seed).propose(seen, None, missing, 0)
        return points + [(point, "random") for point in drawn]

    def _proposed(self, proposer: Proposer, count: int, iteration: int) -> list[tuple[Point, str]]:
        if count == 0 or (iteration == 0 and self._method == "model"):
            return []  # the space is smaller than a batch
        best = None if self.best is None else self.best.point
        points = proposer.propose(self._evidence(), best, self._batch, iteration)
        return [(point, self._method) for point in points[:count]]

    def _evidence(self) -> list[Evidence]:
        return [
            Evidence(point, stage == "finetuned", self._drop(self._found[stage, number]))
            for stage in ("measured", "finetuned")
            for number, (point, _) in enumerate(self._points)
            if (stage, number) in self._found
        ]  # type: ignore[misc]

    def _deserving(self, numbers: Sequence[int]) -> list[int]:
        """Trials of a batch to fine-tune: successive halving, by what they lack to the bound."""
        best = self.best
        least = 0.0 if best is None else self.space.merit(best.point)
        hopeless = self.max_drop + _HOPELESS * abs(self.baseline)
        drops = {number: self._drop(self._found["measured", number]) for number in numbers}
        promising = [
            number
            for number in numbers
            if self.max_drop + _SLACK < drops[number] <= hopeless
            and self.space.merit(self._point_of(number)) > least
        ]
        promising.sort(key=lambda number: drops[number])
        chosen = promising[: math.ceil(self._batch / _HALVING)]
        if best is None and numbers and numbers[0] == 0 and 0 not in chosen:
            chosen = [0, *chosen]  # the highest bits, before they are given up
        return sorted(chosen)

    # --- results ----------------------------------------------------------------------------

    @property
    def baseline(self) -> float:
        """The score in full precision, once it is known."""
        score = self._found["baseline", -1].score
        assert score is not None
        return score

    def _drop(self, found: Measurement) -> float:
        if found.score is None:
            return max(1.0, abs(self.baseline))
        lost = self.baseline - found.score
        return lost if self.mode == "max" else -lost

    def _score(self, found: Measurement) -> float:
        """The score, a bad one where it was not finite."""
        if found.score is not None:
            return found.score
        return self.baseline + self._drop(found) * (-1 if self.mode == "max" else 1)

    @property
    def trials(self) -> list[Trial]:
        """The trials that are measured."""
        measured = (n for n in range(len(self._points)) if ("measured", n) in self._found)
        return [self._trial(number) for number in measured]

    def _trial(self, number: int) -> Trial:
        point, origin = self._points[number]
        measured = self._found["measured", number]
        tuned = self._found.get(("finetuned", number))
        found = [measured] if tuned is None else [measured, tuned]
        better = min(found, key=self._drop)
        return Trial(
            number=number,
            plan=self.space.plan(point),
            point=point,
            origin=origin,
            measured=self._score(measured),
            finetuned=None if tuned is None else self._score(better),
            drop=self._drop(better),
            bytes=self.space.num_bytes(point),
            saving=self.space.saving(point),
            diverged=all(one.score is None for one in found),
            seconds=sum(one.seconds for one in found),
        )

    @property
    def best(self) -> Trial | None:
        """The trial within the bound that saves most; of equals the more accurate one."""
        within = [trial for trial in self.trials if trial.drop <= self.max_drop + _SLACK]
        return max(
            within, key=lambda t: (self.space.merit(t.point), -t.drop, -t.number), default=None
        )

    @property
    def most(self) -> int:
        """Trials at most."""
        return self._most

    @property
    def result(self) -> SearchResult:
        """What is known so far."""
        return SearchResult(
            self.space,
            self.baseline,
            self.best,
            self.trials,
            self.max_drop,
            self.mode,
            self.overhead,
        )


def search(
    space: Space,
    measure: Measure,
    finetune: Measure | None = None,
    on_trial: Callable[[Search], None] | None = None,
    **settings: Any,
) -> SearchResult:
    """Finds the plan with the largest saving whose score drops by ``max_drop`` at most.

    Args:
        space: The space of plans.
        measure: Measures a plan, without training, and returns its score. It is also called with
            the empty plan ``BitPlan()``, which is full precision.
        finetune: The same after fine-tuning; where there is none, plans are judged without.
        on_trial: Called with the search after each measurement.
        **settings: The other arguments of :class:`Search`: ``max_drop``, ``mode``, ``trials``,
            ``recipe``, ``n_measured``, ``n_sampled``, ``n_iterations``, ``seed``, ``method``,
            ``path``, ``about``.

    Raises:
        ValueError: Settings that are out of range, or a file of another search.

    Example:
        >>> from lit_gnncompress.plan import Site
        >>> from lit_gnncompress.search import SiteSize
        >>> space = Space([SiteSize(Site("conv", "features"), (100,))])
        >>> def accuracy(plan):
        ...     bits = plan.features if plan.features == 32 else plan.features["conv"]
        ...     return 0.8 if bits >= 4 else 0.6
        >>> search(space, accuracy).best.plan.features
        {'conv': 4}
    """
    searching = Search(space, finetune=finetune is not None, **settings)
    while jobs := searching.ask():
        for job in jobs:
            start = time.perf_counter()
            by = finetune if job.stage == "finetuned" and finetune is not None else measure
            score = by(job.plan)
            searching.tell(job, score, time.perf_counter() - start)
            if on_trial is not None:
                on_trial(searching)
    return searching.result


def check_numbers(
    max_drop: float,
    trials: int,
    n_measured: int,
    n_sampled: int,
    n_iterations: int | None,
    seed: int,
) -> None:
    """Refuses settings of a search that are out of range.

    Raises:
        ValueError: Naming the argument.
    """
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise ValueError(f"max_drop={max_drop} must be 0 or more, in the unit of the score.")
    for name, value, least in (
        ("trials", trials, 1),
        ("n_measured", n_measured, 1),
        ("n_sampled", n_sampled, 1),
        ("n_iterations", n_iterations, 1),
        ("seed", seed, 0),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name}={value} must be {least} or more.")
