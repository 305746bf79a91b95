"""The recommender benchmark tunes, tests once, goes on where it ended, and draws."""

import argparse
import json
import math

import pytest

from benchmarks import tt_recommender
from benchmarks.output import Output
from benchmarks.recommender_fits import RecommenderFits, Setting


@pytest.fixture
def args(tmp_path):
    parser = argparse.ArgumentParser()
    tt_recommender.add_arguments(parser)
    chosen = ["--methods", "tt8-metis", "parts", "--seeds=2", "--epochs=4", "--batch-size=2048"]
    args = parser.parse_args([*chosen, f"--picture={tmp_path / 'recall.png'}"])
    args.datasets, args.json = ["communities"], tmp_path / "rows.json"
    return args


def test_rows_are_paired_and_nothing_is_fitted_twice(args, monkeypatch):
    settings = {"full": [0.003], "tt": [0.003, 0.01], "parts": [0.003]}
    settings = {kind: [Setting(lr, 1e-4) for lr in rates] for kind, rates in settings.items()}
    monkeypatch.setattr(tt_recommender, "SETTINGS", settings)
    output = Output("tt_recommender", tt_recommender.table, args.json)
    tt_recommender.run(args, output)
    rows = {row["method"]: row for row in output.rows}
    assert list(rows) == ["full", "tt8-metis", "parts"]
    full, cores = rows["full"], rows["tt8-metis"]
    assert full["params_tt"] == full["params_full"] == cores["params_full"] == 700 * 64
    assert cores["reduction"] == 700 * 64 / cores["params_tt"] > 10
    assert cores["params_tt"] >= rows["parts"]["params_tt"] > cores["params_tt"] - 64
    assert cores["delta"] == pytest.approx(cores["recall"] - full["recall"])
    assert math.isfinite(cores["delta_ci95"])
    assert 0 < cores["recall"] <= 100
    assert {2, 4} >= {epoch for epoch, _, _ in cores["curve"]}

    lines = args.json.with_suffix(".fits.jsonl").read_text().splitlines()
    fits = [json.loads(line) for line in lines]
    assert len(fits) == 1 + 2 + 1 + 3 * 2
    tuned = [each for each in fits if each["fit"]["recall"] is None]
    assert {each["key"]["seed"] for each in tuned} == {tt_recommender.TUNING_SEED}
    assert {each["key"]["seed"] for each in fits if each not in tuned} == {0, 1}

    def refuse(*arguments):
        raise AssertionError("fitted twice")

    monkeypatch.setattr(RecommenderFits, "_fit", refuse)
    again = Output("tt_recommender", tt_recommender.table, args.json)
    tt_recommender.run(args, again)
    assert again.rows == output.rows
    assert args.picture.stat().st_size > 1000
    lines = tt_recommender.table(output.rows).splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_methods_differ_in_what_they_say():
    assert len(set(tt_recommender.METHODS.values())) == len(tt_recommender.METHODS)
    assert {method.kind for method in tt_recommender.METHODS.values()} == set(
        tt_recommender.SETTINGS
    )
