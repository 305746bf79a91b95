import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.callbacks import ddp_fits

ROOT = Path(__file__).parents[2]
FULL, SMALL, WARNINGS = range(3)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes ended with, and what they printed."""
    folder = tmp_path_factory.mktemp("ddp")
    done = subprocess.run(
        [sys.executable, "-m", "tests.callbacks.ddp_fits", str(folder), "2"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    return results, done.stdout


@pytest.mark.parametrize("kind", [FULL, SMALL])
def test_both_processes_end_alike(ranks, kind):
    own = {"rank", "bits"}  # the ledger is that of a process's own batch
    first, second = (
        {key: value for key, value in results[kind].items() if key not in own}
        for results in ranks[0]
    )
    assert first == second
    assert [results[kind]["rank"] for results in ranks[0]] == [0, 1]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", [FULL, SMALL])
def test_every_process_turns_and_is_quantized(ranks, kind, rank):
    result = ranks[0][rank][kind]
    assert 2 <= result["bits"] <= 4
    # Early stopping ended full precision after two epochs; three of fine-tuning follow.
    assert (result["turned_at"], result["epochs"]) == (2, 5)
    assert result["moved"]


def test_a_full_graph_on_two_processes_is_one_on_a_single(ranks, tmp_path):
    two = ranks[0][0][FULL]
    one = ddp_fits.run("full graph", ddp_fits.full_graph(), 1)
    assert two["best"] == pytest.approx(one["best"], rel=1e-5)
    for name, value in one["weights"].items():
        torch.testing.assert_close(torch.tensor(two["weights"][name]), torch.tensor(value))


def test_the_table_is_printed_by_one_process(ranks):
    assert ranks[1].count("Bytes of features") == 4  # two fits and two tests


def test_nothing_asks_for_synchronised_logging(ranks):
    assert not [w for w in ranks[0][0][WARNINGS] if "sync_dist" in w and "quant/" in w]
