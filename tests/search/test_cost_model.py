import numpy as np
import pytest

from lit_gnncompress.search import CostModel, RandomProposer, search
from lit_gnncompress.search.cost_model import Evidence
from tests.search import problems

SPACE = problems.space()


def evidence(problem, points):
    return [Evidence(p, False, problems.FULL - problem(SPACE.plan(p))) for p in points]


@pytest.fixture(scope="module")
def known():
    points = SPACE.random(np.random.default_rng(0), 60) + [SPACE.uniform(b) for b in (1, 2, 4, 8)]
    return evidence(problems.Additive(SPACE), points)


def test_proposals_are_new_different_and_better_than_the_best(known):
    best = SPACE.uniform(4)
    points = CostModel(SPACE, 0.05).propose(known, best, 8, 0)
    assert len(set(points)) == 8
    assert not {one.point for one in known} & set(points)
    assert all(SPACE.merit(point) > SPACE.merit(best) for point in points)


def test_proposals_depend_on_seed_and_iteration_alone(known):
    def propose(seed, iteration):
        return CostModel(SPACE, 0.05, seed).propose(known, SPACE.uniform(8), 8, iteration)

    assert propose(1, 2) == propose(1, 2)
    assert propose(1, 2) != propose(2, 2)
    assert propose(1, 2) != propose(1, 3)


def test_it_finds_the_site_that_does_not_matter(known):
    class OnlyTheFirst:
        def __call__(self, plan):
            return problems.FULL - 0.3 * 4.0 ** -SPACE.point(plan)[0]

    points = [one.point for one in known]
    model = CostModel(SPACE, 0.01)
    proposed = model.propose(evidence(OnlyTheFirst(), points), SPACE.uniform(8), 8, 0)
    kept = [point[0] for point in proposed[2:]]  # the first are bold
    rest = [np.mean(point[1:]) for point in proposed[2:]]
    assert np.mean(kept) > np.mean(rest)


def test_nothing_is_proposed_where_nothing_is_better(known):
    assert CostModel(SPACE, 0.05).propose(known, SPACE.uniform(1), 8, 0) == []


def test_a_small_space_is_looked_at_whole():
    space = problems.space(1, 1, group="site")
    seen = [Evidence(point, False, 0.0) for point in list(space.points())[:14]]
    proposed = CostModel(space, 0.1).propose(seen, None, 8, 0)
    assert set(proposed) == set(list(space.points())[14:])
    assert set(RandomProposer(space).propose(seen, None, 8, 0)) == set(proposed)


def test_outliers_and_diverged_trials_do_not_hurt(known):
    wild = [*known, Evidence(SPACE.uniform(1), True, 1e9), Evidence(SPACE.uniform(2), True, -1e9)]
    assert len(CostModel(SPACE, 0.0).propose(wild, None, 8, 0)) == 8


def test_the_overhead_of_every_iteration_is_told():
    assert len(SPACE.dimensions) == 18
    found = search(SPACE, problems.Additive(SPACE, 0), trials=40, seed=0)
    assert len(found.overhead) == 40 / 8  # batches of eight
    assert min(found.overhead) > 0
