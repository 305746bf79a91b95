"""The benchmark of tensor trains compares with what gives the same, and says what is kept."""

import argparse
import json

import pytest
import torch

from benchmarks import tt_lookup
from benchmarks.output import Output
from lit_gnncompress.kernels import tt_lookup as kernel
from tests.kernels.conftest import random_cores


def test_rows(tmp_path):
    parser = argparse.ArgumentParser()
    tt_lookup.add_arguments(parser)
    options = "--shape 1000x8 3,4,5x2,2,2 --rank 4 --batch 50 --rounds 1 --device cpu"
    path = tmp_path / "rows.json"
    output = Output("tt_lookup", tt_lookup.table, path)
    tt_lookup.run(parser.parse_args(options.split()), output)
    rows = json.loads(path.read_text())["rows"]
    settings = {(row["shape"], row["distribution"]) for row in rows}
    assert settings == {(s, d) for s in ("1000x8", "3,4,5x2,2,2") for d in ("uniform", "zipf")}
    for row in rows:
        assert (row["rank"], row["batch"], row["device"]) == (4, 50, "cpu")
        assert row["forward_ratio"] > 0
        assert row["forward_backward_ratio"] > 0
        assert row["step_ratio"] > 0
        assert row["kept_bytes"] == 12 * 50 < row["kept_bytes_bmm"]
        assert row["step_peak_bytes"] > 0
    assert "| 1000x8 | 4 | 50 | zipf | cpu |" in tt_lookup.table(rows)


def test_peers_give_the_same_rows():
    cores = random_cores((3, 4, 5), (2, 3, 2), (2, 3))
    indices = torch.arange(60)
    torch.testing.assert_close(tt_lookup.gather_bmm(indices, cores), kernel(indices, cores))


def test_shapes():
    shape = tt_lookup.shape_of("1000000x64", 16)
    assert (shape.rows, shape.columns, shape.ranks) == ((100,) * 3, (4,) * 3, (16, 16))
    shape = tt_lookup.shape_of("200,220,250x4,4,4", 32)
    assert (shape.rows, shape.columns, shape.ranks) == ((200, 220, 250), (4,) * 3, (32, 32))
    with pytest.raises(ValueError, match="--shape 64 must be rows x columns"):
        tt_lookup.shape_of("64", 16)


def test_zipf_draws_few_rows_often():
    generator = torch.Generator().manual_seed(0)
    drawn = tt_lookup.draw("zipf", 1000, 5000, generator)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < 1000
    often = drawn.bincount(minlength=1000).sort(descending=True)[0] / 5000
    weight = torch.arange(1, 1001) ** -1.2
    torch.testing.assert_close(often[:3], (weight / weight.sum())[:3], rtol=0, atol=0.03)
