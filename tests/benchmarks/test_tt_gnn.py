"""Tensor trains are compared fairly, and the table says whether they hold."""

import argparse
import json
from dataclasses import replace

import pytest
import torch

from benchmarks import tt_gnn
from benchmarks.node_fits import NUMBERING, NodeFits, Setting
from benchmarks.node_tables import (
    EQUAL_PARTS,
    FULL,
    GROUPS,
    MAIN,
    PART_SIZES,
    Method,
    make_order,
    make_table,
)
from benchmarks.output import Output
from benchmarks.tt_gnn import DATASETS, GOAL, table
from benchmarks.tt_gnn import EQUAL_PARTS as OF_TABLE
from benchmarks.tt_gnn_picture import plot
from lit_gnncompress.data import load_graph
from lit_gnncompress.embedding import structural_vectors

METHODS = [method for group in GROUPS.values() for method in group]
SETTING = Setting(lr=0.02, weight_decay=0.0, std=1.0)
ROW = {
    "dataset": "PubMed",
    "model": "sage",
    "method": MAIN.name,
    "rank": 8,
    "partitions": 300,
    "order": "metis",
    "start": "random",
    "params_full": 1_000_000,
    "params_tt": 10_000,
    "reduction": 100.0,
    "full_acc": 70.0,
    "full_acc_ci95": 0.5,
    "tt_acc": 71.0,
    "tt_acc_ci95": 0.5,
    "delta": 1.0,
    "delta_ci95": 0.4,
    "val_acc": 71.5,
}
PARTS = ROW | {"method": OF_TABLE.name, "rank": 0, "tt_acc": 70.5, "delta": 0.5}
ROW |= {"delta_parts": 0.5, "delta_parts_ci95": 0.3}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_fits(path=None, epochs=8):
    return NodeFits("digits", None, epochs=epochs, patience=4, path=path)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_makes_a_table_of_all_nodes(method):
    edge_index = load_graph("digits").edge_index
    order = make_order(method, edge_index, 1797, seed=0)
    vectors = structural_vectors(edge_index, 1797, 64)
    made = make_table(method, 1797, order, vectors, std=0.1)
    rows = made.weight.detach()
    assert rows.shape == (1797, 64)
    assert rows.square().mean().sqrt() == pytest.approx(0.1, rel=0.7)
    if order is not None:
        assert order.rows == method.rows(1797)


def test_methods_have_names_of_their_own():
    assert len({method.name for method in METHODS}) == len(set(METHODS))


@pytest.mark.parametrize("num_nodes", [13752, 19717, 34493, 51264, 18660])
def test_part_vectors_have_the_parameters_of_the_cores(num_nodes):
    cores, parts = (
        sum(
            p.numel()
            for p in make_table(m, num_nodes, make_order(m, *edges), None, 1.0).parameters()
        )
        for m, edges in (
            (replace(MAIN, order="random"), (torch.empty(2, 0, dtype=torch.long), num_nodes, 0)),
            (
                replace(EQUAL_PARTS, order="random"),
                (torch.empty(2, 0, dtype=torch.long), num_nodes, 0),
            ),
        )
    )
    assert 0 <= cores - parts < 64
    assert num_nodes * 64 / cores >= GOAL


def test_the_seed_of_the_numbers_draws_no_split():
    with pytest.raises(ValueError, match="seed=0 numbers the nodes"):
        make_fits()("sage", FULL, SETTING, seed=NUMBERING, test=True)


@pytest.mark.parametrize("model", ["sage", "gat"])
def test_a_fit_learns_and_is_the_same_again(model):
    first = make_fits()(model, MAIN, SETTING, seed=1, test=True)
    again = make_fits()(model, MAIN, SETTING, seed=1, test=True)
    assert (first.val_acc, first.test_acc) == (again.val_acc, again.test_acc)
    assert first.test_acc > 0.5
    other = make_fits()(model, MAIN, SETTING, seed=2, test=True)
    assert other.test_acc != first.test_acc


def test_test_data_are_not_looked_at_before_they_should():
    assert make_fits(epochs=2)("sage", FULL, SETTING, seed=1, test=False).test_acc is None


def test_finished_fits_are_not_done_again(tmp_path, monkeypatch):
    path = tmp_path / "runs.jsonl"
    first = make_fits(path, 2)("sage", FULL, SETTING, seed=1, test=True)
    make_fits(path, 2)("sage", FULL, SETTING, seed=2, test=True)
    with path.open("a") as file:
        file.write('{"key": {"dat')  # interrupted as it wrote
    monkeypatch.setattr(NodeFits, "_fit", lambda *_: pytest.fail("done again"))
    assert make_fits(path, 2)("sage", FULL, SETTING, seed=1, test=True) == first
    with pytest.raises(pytest.fail.Exception):
        make_fits(path, 3)("sage", FULL, SETTING, seed=1, test=True)


def test_a_whole_run_has_a_row_per_method_and_says_how_long_it_is(tmp_path, monkeypatch):
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=lambda text: tmp_path / text)
    tt_gnn.add_arguments(parser)
    monkeypatch.setattr(tt_gnn, "DATASETS", ("digits",))
    monkeypatch.setattr(tt_gnn, "SETTINGS", (SETTING,))
    groups = {"core": GROUPS["core"], "sweep": (replace(MAIN, rank=16),)}
    monkeypatch.setattr(tt_gnn, "GROUPS", groups)
    monkeypatch.setattr(tt_gnn, "PART_SIZES", PART_SIZES[:2])
    arguments = ["--json=out.json", "--models=sage", "--seeds=2", "--epochs=2"]
    args = parser.parse_args([*arguments, "--groups", *groups])
    args.datasets, args.picture = ["digits"], tmp_path / "out.png"
    planned, done = [], []
    number = tt_gnn._number_of_fits
    monkeypatch.setattr(
        tt_gnn, "_number_of_fits", lambda *a: planned.append(number(*a)) or planned[0]
    )
    call = NodeFits.__call__
    monkeypatch.setattr(NodeFits, "__call__", lambda *a: done.append(a) or call(*a))
    output = Output("tt_gnn", table, args.json)
    tt_gnn.run(args, output)
    assert planned == [len(done)]
    names = [row["method"] for row in output.rows]
    expected = {m.name for group in groups.values() for m in group if m != FULL}
    assert set(names) == expected | {tt_gnn.BEST_PARTS}
    for row in json.loads(args.json.read_text())["rows"]:
        assert row["reduction"] == row["params_full"] / row["params_tt"]
        assert row["delta"] == pytest.approx(row["tt_acc"] - row["full_acc"])
    assert args.picture.stat().st_size > 1000


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([ROW, PARTS], "at or above the full table (+1.00 ± 0.40 at 100×), at or above part "),
        ([ROW | {"delta": -0.1}, PARTS], "below the full table (-0.10 ± 0.40 at 100×), at or "),
        ([ROW | {"delta_parts": -0.5}, PARTS], "below part vectors of equal size (-0.50 ± 0.30)"),
        ([ROW | {"reduction": 80.0}, PARTS], "no tensor train at 90× or more measured"),
        # Validation chooses, whatever was tested best.
        ([ROW, ROW | {"method": "other", "val_acc": 60.0, "delta": 9.0}], "(+1.00 ± 0.40"),
    ],
)
def test_verdict(rows, verdict):
    assert verdict in table(rows).splitlines()[-1]


def test_lines_have_as_many_fields():
    lines = table([ROW, PARTS, ROW | {"delta_ci95": None}]).split("\n\n")[0].splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1


def test_a_picture_shows_what_there_is(tmp_path):
    other = ROW | {"dataset": "Computers", "model": "gat", "tt_acc_ci95": None}
    plot([ROW, PARTS, other | {"full_acc_ci95": None}], tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_datasets_are_known():
    from lit_gnncompress.data import available_graphs

    assert set(DATASETS) <= set(available_graphs())
    assert isinstance(MAIN, Method)
