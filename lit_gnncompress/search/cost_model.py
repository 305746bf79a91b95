"""The cost model: which plans to measure next, learned from those measured so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import nnls
from scipy.special import ndtr

from lit_gnncompress.needed import needed
from lit_gnncompress.search.space import Point, Space

_TREES = 20
_BOLDEST, _MOST_CAREFUL = 0.5, 3.0  # exponents of the probability that a plan is feasible
_LEAST_STD = 0.1  # of the transformed drop; a forest is sure of what it has seen
_CAP = 30.0  # bounds; what loses more is simply bad


class Evidence(NamedTuple):
    """One measurement.

    Attributes:
        point: The plan.
        finetuned: Whether it was measured after fine-tuning.
        drop: What it loses against full precision.
    """

    point: Point
    finetuned: bool
    drop: float


class Proposer(Protocol):
    """Says what to measure next."""

    def propose(
        self, evidence: Sequence[Evidence], best: Point | None, count: int, iteration: int
    ) -> list[Point]:
        """At most ``count`` points that are not in ``evidence``; fewer where there are no more.

        Args:
            evidence: All measurements so far.
            best: The best point so far whose drop is within bounds.
            count: Number of points.
            iteration: How often this was asked before; it seeds what is drawn.
        """


class RandomProposer:
    """Random search.

    Args:
        space: The space.
        seed: What is drawn depends on it and on the iteration alone.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        self.space, self.seed = space, seed

    def propose(  # noqa: D102
        self, evidence: Sequence[Evidence], best: Point | None, count: int, iteration: int
    ) -> list[Point]:
        rng = np.random.default_rng([self.seed, iteration])
        seen = {one.point for one in evidence}
        return _unseen(_drawn(self.space, rng, 4 * count + len(seen)), seen)[:count]


class CostModel:
    """SGQuant's learned cost model (arXiv 2007.05100, section V), for plans within a bound.

    The paper's steps are: (1) measure ``n_measured`` configurations; (2) train the cost model;
    (3) sample ``n_sampled`` configurations, predict them, take the top ``n_measured``; (4) measure
    these; (5) repeat 2 to 4 until ``n_iterations``. This class is steps 2 and 3;
    :class:`~lit_gnncompress.search.Search` does the others.

    The bytes of a plan are known, so only its drop is learned: by randomized trees over bits,
    saving, and the noise that the bits add (sites weigh as much as a non-negative least-squares fit
    gives them, a code of b bits ``4^-b``). More bits never raise the prediction. Half of the
    sampled configurations are mutations of the best known ones, half are random. Ranked first is
    the largest expected gain, in the logarithm of the saving, times the probability that the drop
    is within the bound; the picks of a batch go from bold to careful by the weight of the latter.

    Args:
        space: The space.
        max_drop: The bound.
        seed: Everything drawn depends on it, the evidence and the iteration alone.
        n_sampled: Configurations that are predicted at each iteration.
        scale: Drop that counts as small where ``max_drop`` is 0.
    """

    def __init__(
        self,
        space: Space,
        max_drop: float,
        seed: int = 0,
        n_sampled: int = 500,
        scale: float = 1e-3,
    ) -> None:
        self.space, self.max_drop, self.seed, self.n_sampled = space, max_drop, seed, n_sampled
        self._scale = max(max_drop, scale)
        # Slow to import, and needed by searches alone; no part of an iteration's time.
        with needed("scikit-optimize", by="The cost model of the bit search"):
            from skopt.learning import ExtraTreesRegressor

        self._trees = ExtraTreesRegressor

    def propose(  # noqa: D102
        self, evidence: Sequence[Evidence], best: Point | None, count: int, iteration: int
    ) -> list[Point]:
        rng = np.random.default_rng([self.seed, iteration])
        seen = {one.point for one in evidence}
        least = 0.0 if best is None else self.space.merit(best)
        sampled = _unseen(self._sampled(evidence, best, rng), seen)
        gains = np.array([self.space.merit(point) for point in sampled]) - least
        better = np.flatnonzero(gains > 1e-9)[: self.n_sampled]
        if better.size == 0:
            return []
        sampled, gains = [sampled[i] for i in better], gains[better]
        logarithm = self._log_probability(evidence, sampled, rng)
        picks: list[int] = []
        for care in np.geomspace(_BOLDEST, _MOST_CAREFUL, count):
            scores = np.log(gains) + care * logarithm
            scores[picks] = -np.inf
            if len(picks) < len(sampled):
                picks.append(int(scores.argmax()))
        return [sampled[pick] for pick in picks]

    # --- step 2 -----------------------------------------------------------------------------

    def _log_probability(
        self, evidence: Sequence[Evidence], points: Sequence[Point], rng: np.random.Generator
    ) -> np.ndarray:
        """Logarithm of the probability that the drop of ``points`` is within the bound."""
        noise = self._noise_fit(evidence)
        known = [one.point for one in evidence]
        tuned = np.array([one.finetuned for one in evidence], dtype=np.float64)
        drops = self._squashed([one.drop for one in evidence])
        seen = np.column_stack([self._features(known, noise), tuned])
        forest = self._trees(
            n_estimators=_TREES,
            min_samples_leaf=2,
            random_state=int(rng.integers(2**31)),
        )
        # More bits, less drop; more noise, more. The subclass does not name the argument.
        forest.monotonic_cst = [-1] * len(self.space.dimensions) + [0, 1, -1]
        forest.fit(seen, drops)
        # What is asked is the drop after fine-tuning, where there is any.
        ask = np.full(len(points), tuned.max())
        mean, std = forest.predict(
            np.column_stack([self._features(points, noise), ask]), return_std=True
        )
        bound = float(self._squashed([self.max_drop])[0])
        within = ndtr((bound - mean) / np.maximum(std, _LEAST_STD))
        return np.log(np.maximum(within, 1e-9))

    def _squashed(self, drops: Iterable[float]) -> np.ndarray:
        """Drops, with what is far beyond the bound pressed together."""
        return np.arcsinh(np.clip(np.array(list(drops)) / self._scale, -_CAP, _CAP))

    def _features(self, points: Sequence[Point], noise: np.ndarray) -> np.ndarray:
        return np.column_stack([self.space.features(points), _noise(points) @ noise])

    def _noise_fit(self, evidence: Sequence[Evidence]) -> np.ndarray:
        """Weights of the dimensions: how much a drop grows with the noise of each."""
        powers = _noise([one.point for one in evidence])
        drops = np.array([one.drop for one in evidence]) / self._scale
        # A large drop says that some site is sensitive, not by how much.
        bounded = np.clip(drops, 0, _CAP)
        trust = 1 / (1 + bounded)
        # A little pull to zero, evenly: few plans do not determine many weights.
        pull = 1e-3 * np.eye(powers.shape[1])
        left = np.vstack([powers * trust[:, None], pull])
        right = np.concatenate([bounded * trust, np.zeros(len(pull))])
        weights, _ = nnls(left, right, maxiter=10 * powers.shape[1])
        return weights

    # --- step 3 -----------------------------------------------------------------------------

    def _sampled(
        self, evidence: Sequence[Evidence], best: Point | None, rng: np.random.Generator
    ) -> list[Point]:
        if self.space.num_plans <= self.n_sampled:
            return list(self.space.points())
        parents, sites = self._parents(evidence, best), self.space.by_site
        # Twice as many as are predicted: those that cannot be better than the best go.
        mutated = [
            _mutated(
                self.space, sites, parents[min(int(rng.exponential(2.0)), len(parents) - 1)], rng
            )
            for _ in range(self.n_sampled)
        ]
        drawn = _drawn(self.space, rng, self.n_sampled)
        return [point for pair in zip(mutated, drawn, strict=True) for point in pair]

    def _parents(self, evidence: Sequence[Evidence], best: Point | None) -> list[Point]:
        """The best plan, then the front of saving against drop, nearest to the bound first."""
        drops: dict[Point, float] = {}
        for one in evidence:
            drops[one.point] = min(one.drop, drops.get(one.point, math.inf))
        merits = {point: self.space.merit(point) for point in drops}
        front, least = [], math.inf
        for point in sorted(drops, key=lambda p: -merits[p]):
            if drops[point] < least:
                front.append(point)
                least = drops[point]
        front.sort(key=lambda p: abs(drops[p] - self.max_drop))
        return [*([] if best is None else [best]), *(p for p in front if p != best)]


def _noise(points: Sequence[Point]) -> np.ndarray:
    """Squared error of a code, up to a factor: float64, shape ``(len(points), D)``."""
    return 4.0 ** -np.array(points, dtype=np.float64)


def _drawn(space: Space, rng: np.random.Generator, count: int) -> list[Point]:
    return space.random(rng, count)


def _mutated(
    space: Space, sites: Sequence[Sequence[int]], parent: Point, rng: np.random.Generator
) -> Point:
    """A neighbour: one to three changes of a dimension or of a whole site, mostly one level down.

    Args:
        space: The space.
        sites: Dimensions of each site.
        parent: The point to change.
        rng: What draws the changes.
    """
    point = list(parent)
    for _ in range(int(rng.integers(1, 4))):
        dimension = int(rng.integers(len(point)))
        changed = [dimension]
        if rng.random() < 0.25:
            changed = list(sites[int(rng.integers(len(sites)))])
        anywhere, to = rng.random() < 0.2, rng.random()
        step = -1 if rng.random() < 0.7 else 1
        for one in changed:
            choices = space.dimensions[one].choices
            place = min(max(choices.index(point[one]) + step, 0), len(choices) - 1)
            point[one] = choices[int(to * len(choices)) if anywhere else place]
    return tuple(point)


def _unseen(points: Iterable[Point], seen: set[Point]) -> list[Point]:
    return [point for point in dict.fromkeys(points) if point not in seen]
