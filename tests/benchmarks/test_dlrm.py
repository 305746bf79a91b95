"""The benchmark of DLRM counts all parameters and compares steps of models that are alike."""

import argparse
import json
from dataclasses import replace

import pytest
import torch

from benchmarks import dlrm
from benchmarks.dlrm_models import PRESETS, Model, fraction_within, num_parameters
from benchmarks.output import Output
from lit_gnncompress.embedding import TTEmbedding, joined_lookup, smallest_rows


def parse(options):
    parser = argparse.ArgumentParser()
    dlrm.add_arguments(parser)
    return parser.parse_args(options.split())


@pytest.fixture
def small(monkeypatch):
    preset = PRESETS["kaggle"]
    rows = tuple(min(rows, 3000) for rows in preset.num_embeddings)
    monkeypatch.setitem(PRESETS, "kaggle", replace(preset, num_embeddings=rows))


def test_rows(tmp_path, small, monkeypatch):
    monkeypatch.setattr(Model, "peak_bytes", lambda model: 10**7 >> model.tables_tt)
    options = "--preset kaggle --tables-tt 0 7 --rank 2 4 --batch 16 --pairs 2 --fraction 0.5"
    output = Output("dlrm", dlrm.table, tmp_path / "rows.json")
    dlrm.run(parse(options), output)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    found = [(row["optimizer"], row["tables_tt"], row["rank"]) for row in rows]
    assert found == [(o, t, r) for o in ("adagrad", "sgd") for t, r in ((0, 0), (7, 2), (7, 4))]
    for row in rows:
        low, high = row["step_ratio_spread"]
        assert 0 < low <= row["step_ratio"] <= high
        assert (row["fraction"], row["batch"], row["pairs"]) == (0.5, 16, 2)
        assert row["peak_memory_ratio"] == 1 / 2 ** row["tables_tt"]
        assert row["model_reduction"] == rows[0]["parameters"] / row["parameters"]
    assert rows[0]["model_reduction"] == 1
    assert "| kaggle | sgd | 7 | 4 | 16 | 0.5 |" in dlrm.table(rows)


@pytest.mark.parametrize(("preset", "reduction"), [("kaggle", 46), ("terabyte", 37)])
def test_reductions_of_the_paper_are_reached(preset, reduction):
    model = Model(preset, "adagrad", 1.0, 7, 32, 2048)
    assert num_parameters(replace(model, tables_tt=0)) / num_parameters(model) >= reduction
    assert len(PRESETS[preset].num_embeddings) == 26


def test_parameters_are_those_of_the_model(small):
    for tables in (0, 3):
        model = Model("kaggle", "sgd", 1.0, tables, 4, 16)
        assert num_parameters(model) == sum(p.numel() for p in model.build().parameters())


def test_the_largest_tables_are_tensor_trains_asked_in_one_call(small, monkeypatch):
    model, asked = Model("kaggle", "sgd", 1.0, 3, 4, 16), []
    kernel = joined_lookup.tt_lookup
    monkeypatch.setattr(
        joined_lookup, "tt_lookup", lambda *args: (asked.append(args), kernel(*args))[1]
    )
    built, (dense, categories, _) = model.build(), model.draw()
    built(dense, categories).sum().backward()
    assert [args[0].shape for args in asked] == [(16, 3)]
    trains = [k for k, table in enumerate(built.embeddings) if isinstance(table, TTEmbedding)]
    assert trains == sorted(PRESETS["kaggle"].largest(3))
    for k in trains:
        table = built.embeddings[k]
        assert table.shape.rows == smallest_rows(3000, PRESETS["kaggle"].columns, 4)
        assert all(core.grad.any() for core in table.cores)
    before = [p.detach().clone() for p in model.build().parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, model.build().parameters(), strict=True))


def test_peaks_are_of_a_process_of_its_own():
    model = Model("kaggle", "adagrad", 0.01, 0, 0, 16)
    numbers = sum(model.num_embeddings) * 16
    assert 8 * numbers < model.peak_bytes() < 8 * numbers + 2e8


def test_fractions():
    assert fraction_within("kaggle", "adagrad", 10.0) == 1
    assert fraction_within("terabyte", "adagrad", 10.0) == 0.39
    assert fraction_within("terabyte", "sgd", 10.0) == 0.79
    with pytest.raises(ValueError, match=r"--memory 0\.1 GB: the dense tables of terabyte take"):
        fraction_within("terabyte", "adagrad", 0.1)
    for options, message in (
        ("--fraction 2", r"--fraction 2\.0 must lie in \(0, 1\]"),
        ("--tables-tt 27", "--tables-tt 27: there are 26 tables"),
    ):
        with pytest.raises(ValueError, match=message):
            dlrm.run(parse(options), Output("dlrm", dlrm.table))
