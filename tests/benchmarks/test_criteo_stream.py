"""A file is streamed and measured; what is read a second time is there already."""

import argparse
import json

import pytest

from benchmarks import criteo_stream
from benchmarks.criteo_rows import write_criteo
from benchmarks.criteo_stream import read, table
from benchmarks.output import Output


def parse(*options):
    parser = argparse.ArgumentParser()
    criteo_stream.add_arguments(parser)
    return parser.parse_args(options)


def test_a_run_leaves_a_row(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    output = Output("criteo_stream", table, tmp_path / "rows.json")
    criteo_stream.run(parse("--rows", "1000", "--folder", str(folder)), output)
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["rows"] == 1000
    assert row["arrays_bytes"] == 1000 * (13 * 4 + 26 * 4 + 1)
    assert 150_000 < row["file_bytes"] < 300_000
    assert row["rows_per_second"] == pytest.approx(1000 / row["seconds"])
    assert row["peak_memory_mb"] > 10
    assert row["second_call_seconds"] > 0
    assert "| 1,000 | 0.00 |" in table([row])
    assert not list(folder.iterdir())


def test_the_second_call_takes_the_arrays_of_the_first(tmp_path):
    write_criteo(tmp_path / "day_0", 300)
    first = read(tmp_path / "day_0")
    (made,) = [path for path in (tmp_path / "tables").iterdir() if path.is_dir()]
    before = {path.name: path.stat().st_mtime_ns for path in made.glob("*.npy")}
    again = read(tmp_path / "day_0")
    assert {path.name: path.stat().st_mtime_ns for path in made.glob("*.npy")} == before
    assert again["arrays_bytes"] == first["arrays_bytes"]


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--rows 0 must be 1 or more"):
        criteo_stream.run(parse("--rows", "5", "0"), Output("criteo_stream", table))
