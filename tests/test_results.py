import json
import math

import pytest
from scipy import stats

from lit_gnncompress import BitPlan, Comparison, Ledger
from lit_gnncompress.results import Interval, SeedResult

PLAN = BitPlan(features={"convs.0": [8, 4]}, attention=8, degree_splits=[4])


def comparison_of(*pairs):
    results = [SeedResult(seed, a, b, 10) for seed, (a, b) in enumerate(pairs)]
    return Comparison("test_acc", results, PLAN, Ledger())


@pytest.mark.parametrize("values", [[0.8, 0.9], [0.81, 0.79, 0.85, 0.8, 0.83]])
def test_interval_is_students(values):
    interval = Interval.of(iter(values))
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values)
    )
    assert interval.mean - interval.ci95 == pytest.approx(low)
    assert interval.mean + interval.ci95 == pytest.approx(high)


def test_interval_of_two_by_hand():
    # t(0.975, 1) = 12.706, standard error 0.05
    assert Interval.of([0.8, 0.9]) == Interval(pytest.approx(0.85), pytest.approx(0.6353, abs=1e-4))


def test_a_single_value_has_no_interval():
    assert Interval.of([0.5]).mean == 0.5
    assert math.isnan(Interval.of([0.5]).ci95)


def test_the_difference_is_paired_by_seed():
    comparison = comparison_of((0.2, 0.3), (0.9, 1.0), (0.5, 0.6))
    assert comparison.delta == Interval(pytest.approx(0.1), pytest.approx(0, abs=1e-9))
    assert comparison.full_precision.ci95 > 0.5
    assert comparison.quantized.mean == pytest.approx(1.9 / 3)


def test_json_has_everything_and_gives_the_plan_back():
    read = json.loads(json.dumps(comparison_of((0.5, 0.6), (0.7, 0.7)).to_dict()))
    assert read["metric"] == "test_acc"
    assert read["seeds"][0] == {"seed": 0, "full_precision": 0.5, "quantized": 0.6, "epochs": 10}
    assert read["delta"]["mean"] == pytest.approx(0.05)
    assert BitPlan.from_dict(read["plan"]) == PLAN
    assert {"rows", "average_bits", "saving_real"} <= read["ledger"].keys()


def test_a_single_seed_is_json_that_every_program_reads():
    read = comparison_of((0.5, 0.6)).to_dict()
    assert json.dumps(read, allow_nan=False)
    assert read["delta"] == {"mean": pytest.approx(0.1), "ci95": None}
