"""Both halves in one Trainer: every stage is tested, and takes less than the one before."""

import argparse
import json

import torch

from benchmarks import combined
from benchmarks.combined import _setting, _shuffled, run, table
from benchmarks.output import Output
from lit_gnncompress.data import GraphDataModule


def test_every_stage_takes_less_than_the_one_before(monkeypatch, tmp_path):
    monkeypatch.setattr(combined, "_EPOCHS", 12)
    monkeypatch.setattr(combined, "_FINETUNING", 3)
    setting = {"lr": 0.01, "weight_decay": 0.0, "std": 1.0}
    monkeypatch.setattr(combined, "_setting", lambda dataset, kind: setting)
    output = Output("combined", table)
    args = argparse.Namespace(
        datasets=["digits"], bits=4, core_bits=[8, 4], seeds=2, first_seed=0, root=None,
        cache_dir=tmp_path,
    )  # fmt: skip
    run(args, output)
    rows = output.rows
    assert [row["stage"] for row in rows] == [
        "full table",
        "tensor train",
        "tensor train, features in 4 bits",
        "tensor train, features in 4 bits, cores in 8",
        "tensor train, features in 4 bits, cores in 4",
    ]
    sizes = [row["bytes"] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert rows[-1]["saving"] > 5
    assert all(row["acc"] > 50 for row in rows)  # a tenth of the nodes has each class
    assert "| digits | full table | 0–1 |" in table(rows)


def test_nodes_are_numbered_at_random_with_all_that_they_have():
    plain = GraphDataModule("digits", features=False, split="shares", split_seed=1).data
    graph = _shuffled("digits", 1, None).data
    assert not torch.equal(graph.y, plain.y)
    for mask in ("train_mask", "test_mask"):
        assert torch.equal(graph.y[graph[mask]].bincount(), plain.y[plain[mask]].bincount())
    assert torch.equal(graph.edge_index[1].bincount(minlength=1797), graph.deg)
    ends, plain_ends = (g.y[g.edge_index] for g in (graph, plain))
    assert torch.equal(ends, plain_ends)


def test_settings_are_those_that_were_chosen(monkeypatch, tmp_path):
    monkeypatch.setattr(combined, "RESULTS", tmp_path)
    usual = _setting("Computers", "tt")
    chosen = {"lr": 0.03, "weight_decay": 0.0, "std": 0.1}
    name = "TT rank 8, metis, parts of 60, start by structure"
    row = {"dataset": "Computers", "model": "sage", "method": name, "setting": chosen}
    (tmp_path / "tt_gnn.json").write_text(json.dumps({"rows": [row]}))
    assert _setting("Computers", "tt") == chosen
    assert _setting("Computers", "full") == _setting("PubMed", "tt") == usual
