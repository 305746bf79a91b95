"""Large sizes are measured as they are told."""

import argparse
import json

import pytest

from benchmarks import scale
from benchmarks.output import Output

SMALL = scale.Size(nodes=5000, edges=20_000, width=100, classes=5)


def test_a_run_leaves_a_row(tmp_path):
    parser = argparse.ArgumentParser()
    scale.add_arguments(parser)
    options = ["--graph", "ogbn-products", "--what", "pack features", "--fraction", "0.002"]
    output = Output("scale", scale.table, tmp_path / "rows.json")
    scale.run(parser.parse_args(options), output)
    [row] = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert (row["nodes"], row["what"]) == (4898, "pack features")
    assert row["process_bytes"] > row["bytes_fp32"]
    assert row["bytes_fp32"] == pytest.approx(4 * 4898 * 100, abs=200)
    assert 6 < row["memory_ratio"] < 8  # 4 bits, and a range for each row
    assert scale.table([row]).count("| ogbn-products, 0.2 % |") == 1


def test_a_forward_pass_counts_all_that_it_reads():
    row = scale.forward(SMALL)
    features, edges = 4 * SMALL.nodes * SMALL.width, 2 * SMALL.edges + SMALL.nodes
    assert row["bytes_fp32"] > features + edges * (8 + 4)
    assert row["memory_ratio"] > 1


def test_a_full_table_has_two_moments_and_ours_is_small():
    row = scale.train_table(SMALL)
    assert row["bytes_fp32"] == pytest.approx(3 * 4 * SMALL.nodes * 100, rel=0.01)
    assert row["memory_ratio"] > 10
