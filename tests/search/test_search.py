import math

import pytest

from lit_gnncompress import BitPlan
from lit_gnncompress.search import Search, search
from tests.search import problems

SPACE = problems.space()


def run(seed=0, problem=None, **settings):
    problem = problem or problems.Additive(SPACE, seed)
    return search(SPACE, problem, **{"trials": 40, "seed": seed} | settings)


def test_it_beats_random_search():
    savings, at_random = [], []
    for seed in range(4):
        savings.append(run(seed, trials=60).best.saving)
        best = run(seed, trials=60, method="random").best
        at_random.append(1.0 if best is None else best.saving)
    assert sum(savings) > 1.25 * sum(at_random)
    assert all(a > b for a, b in zip(savings, at_random, strict=True))


def test_it_is_near_the_optimum_of_a_space_that_can_be_looked_at_whole():
    space = problems.space(3, 1, bits=(1, 2, 8))  # 729 plans
    for seed in range(3):
        problem = problems.Additive(space, seed)
        within = [p for p in space.points() if problem(space.plan(p)) >= problems.FULL - 0.01]
        optimum = max(map(space.saving, within))
        found = search(space, problem, max_drop=0.01, trials=40, seed=seed)
        assert found.best.saving > 0.9 * optimum


def test_it_is_never_below_a_recipe_within_bounds():
    recipe = BitPlan({"convs.0": 2, "convs.1": 8, "convs.2": 8}, 8)

    def picky(plan):
        point = SPACE.point(plan)
        return 0.8 if plan == BitPlan() or min(point) > 2 or point == SPACE.point(recipe) else 0.0

    found = run(problem=picky, recipe=recipe)
    assert found.best.plan == SPACE.plan(SPACE.point(recipe))
    assert found.best.origin == "recipe"


def test_it_starts_where_an_engineer_would():
    found = run(recipe=BitPlan(features=8, attention=1))
    origins = [trial.origin for trial in found.trials]
    assert origins[:5] == ["uniform"] * 4 + ["recipe"]
    assert origins[5:13] == ["scan"] * 8
    assert found.trials[0].plan == SPACE.plan(SPACE.uniform(8))
    scanned = found.trials[5].point  # the largest site, at the lowest bits
    assert [bits for bits in scanned if bits != 8] == [1, 1, 1]
    assert scanned[:3] == (1, 1, 1)


def test_trials_are_different_and_as_many_as_asked():
    problem = problems.Additive(SPACE)
    found = run(problem=problem, trials=37)
    assert len({trial.point for trial in found.trials}) == len(found.trials) == 37
    assert len(problem.calls) == 38  # with full precision
    assert [trial.number for trial in found.trials] == list(range(37))
    assert len(run(trials=40, n_iterations=3).trials) == 24


def test_a_space_smaller_than_the_trials_ends_early():
    space = problems.space(group="all")
    found = search(space, problems.Additive(space), max_drop=0.05, trials=40)
    assert len(found.trials) == 4
    assert found.best.point == (1,)


def test_for_a_loss():
    problem = problems.Additive(SPACE)
    loss = run(problem=lambda plan: -problem(plan), mode="min")
    accuracy = run(problem=problem)
    assert [t.point for t in loss.trials] == [t.point for t in accuracy.trials]
    assert loss.best.drop == accuracy.best.drop >= 0


def test_a_trial_that_diverged_has_a_finite_bad_score():
    problem = problems.Additive(SPACE)

    def diverging(plan):
        return math.nan if SPACE.point(plan)[0] < 4 else problem(plan)

    found = run(problem=diverging)
    bad = [trial for trial in found.trials if trial.diverged]
    assert bad
    assert all(trial.drop == 1.0 and math.isfinite(trial.accuracy) for trial in bad)
    assert found.best.point[0] >= 4


def test_full_precision_that_diverged_is_an_error():
    with pytest.raises(ValueError, match="full precision is nan"):
        run(problem=lambda plan: math.nan)


def test_when_even_the_highest_bits_miss_the_bound():
    problem = problems.Additive(SPACE)
    found = run(problem=lambda plan: 0.9 if plan == BitPlan() else problem(plan))
    assert found.best is None
    assert len(found.trials) == 8  # a batch, and no more


# --- fine-tuning --------------------------------------------------------------------------------


def finetuning(seed=0, **settings):
    measured, tuned = problems.Additive(SPACE, seed), problems.Additive(SPACE, seed)

    def finetune(plan):
        return min(problems.FULL, tuned(plan) + 0.02)

    found = search(SPACE, measured, finetune, **{"trials": 40, "seed": seed} | settings)
    return found, tuned.calls


def test_few_are_fine_tuned_and_the_best_is_among_them():
    found, calls = finetuning()
    tuned = [trial for trial in found.trials if trial.finetuned is not None]
    assert len(calls) == len(tuned) <= 2 * 5 + 1
    assert found.best.finetuned is not None
    assert found.best.saving >= run().best.saving


def test_those_are_fine_tuned_that_miss_the_bound_by_little():
    found, _ = finetuning()
    for trial in found.trials:
        if trial.finetuned is not None and trial.number != found.best.number:
            assert problems.FULL - trial.measured > 0.004
            assert problems.FULL - trial.measured <= 0.004 + 0.1 * problems.FULL


def test_fine_tuning_that_hurts_does_not_count():
    found = search(SPACE, problems.Additive(SPACE), lambda plan: 0.1, trials=24)
    assert found.best.accuracy == found.best.measured == found.best.finetuned


def test_fine_tuning_saves_the_highest_bits():
    problem = problems.Additive(SPACE)

    def measure(plan):
        return problems.FULL if plan == BitPlan() else problem(plan) - 0.05

    found = search(SPACE, measure, problem, trials=16, max_drop=0.01)
    assert found.best is not None
    assert len(found.trials) == 16


# --- interruption -------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [1, 5, 17, 20, 33])
def test_an_interrupted_search_goes_on(after, tmp_path):
    whole, _ = finetuning(path=tmp_path / "whole.jsonl")
    path = tmp_path / "part.jsonl"
    told = 0

    def stop(searching):
        nonlocal told
        told += 1
        if told == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        finetuning(path=path, on_trial=stop)
    resumed, _ = finetuning(path=path)
    assert resumed.trials == whole.trials
    assert resumed.best == whole.best
    again, calls = finetuning(path=path)
    assert (again.trials, calls) == (whole.trials, [])


def test_a_search_can_be_made_longer(tmp_path):
    short = run(trials=24, path=tmp_path / "trials.jsonl")
    longer = run(trials=40, path=tmp_path / "trials.jsonl")
    assert longer.trials[:24] == short.trials
    assert longer.trials == run(trials=40).trials


@pytest.mark.parametrize("settings", [{"seed": 5}, {"max_drop": 0.1}, {"n_measured": 4}])
def test_the_file_of_another_search_is_refused(settings, tmp_path):
    run(trials=4, path=tmp_path / "trials.jsonl")
    with pytest.raises(ValueError, match=rf"differs in settings: {next(iter(settings))}"):
        run(path=tmp_path / "trials.jsonl", **settings)


def test_the_file_of_another_space_is_refused(tmp_path):
    run(trials=4, path=tmp_path / "trials.jsonl")
    other = problems.space(bits=(1, 8))
    with pytest.raises(ValueError, match="differs in space"):
        search(other, problems.Additive(other), path=tmp_path / "trials.jsonl")


def test_jobs_may_be_told_in_any_order():
    problem = problems.Additive(SPACE)
    searching = Search(SPACE, trials=32)
    while jobs := searching.ask():
        assert searching.ask() == jobs
        for job in reversed(jobs):
            searching.tell(job, problem(job.plan))
    assert searching.result.trials == run(problem=problem, trials=32).trials


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_drop": -0.1}, "max_drop=-0.1 must be 0 or more"),
        ({"max_drop": math.nan}, "max_drop=nan"),
        ({"trials": 0}, "trials=0 must be 1 or more"),
        ({"n_measured": 0}, "n_measured=0"),
        ({"n_sampled": 0}, "n_sampled=0"),
        ({"seed": -1}, "seed=-1"),
        ({"mode": "maximum"}, "mode='maximum' is none of min, max"),
        ({"method": "forest"}, "method='forest'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Search(SPACE, **settings)
