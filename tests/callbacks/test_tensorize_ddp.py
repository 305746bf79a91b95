import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.callbacks import tensorize_fits

ROOT = Path(__file__).parents[2]


def fits_of_two(folder, fit):
    """What each of two processes ended with, and what they printed."""
    # A seed that another test has given to Lightning would be theirs, but not that of one process.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PL_")}
    arguments = [str(folder), "2", fit]
    done = subprocess.run(
        [sys.executable, "-m", "tests.callbacks.tensorize_fits", *arguments],
        env=env | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)], done.stdout


@pytest.mark.parametrize("fit", ["run", "run_clicks"])
def test_two_processes_have_the_same_cores_as_one(fit, tmp_path):
    # They draw different numbers, and take those of the first.
    (first, second), printed = fits_of_two(tmp_path, fit)
    assert [first["rank"], second["rank"]] == [0, 1]
    assert first["weights"] == second["weights"]
    assert printed.count("Embedding tables as tensor trains") == 1
    one = getattr(tensorize_fits, fit)(1, 7)
    assert one["weights"].keys() == first["weights"].keys()
    for name, value in one["weights"].items():
        torch.testing.assert_close(
            torch.tensor(first["weights"][name]), torch.tensor(value), atol=1e-5, rtol=1e-4
        )


def test_gradients_that_travel_shrink_with_the_table():
    full = tensorize_fits.run(1, 7, tensorize=False)
    cores = tensorize_fits.run(1, 7)
    assert full["bytes"] == 4 * tensorize_fits.NODES * tensorize_fits.WIDTH
    assert cores["bytes"] < full["bytes"] / 4
