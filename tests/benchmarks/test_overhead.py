"""The overhead benchmark measures a ratio for each of its settings."""

import argparse

from benchmarks import overhead
from benchmarks.output import Output


def test_rows(tmp_path):
    parser = argparse.ArgumentParser()
    overhead.add_arguments(parser)
    args = parser.parse_args(["--dataset", "digits", "--epochs", "1", "--repeats", "1"])
    output = Output("overhead", overhead.table, tmp_path / "overhead.json")
    overhead.run(args, output)
    assert {(row["model"], row["input_dropout"]) for row in output.rows} == {
        ("gcn", 0.0),
        ("gcn", 0.5),
        ("gat", 0.0),
        ("gat", 0.5),
    }
    assert all(row["ratio"] > 0 and row["fp32_epoch_ms"] > 0 for row in output.rows)
