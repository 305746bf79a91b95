import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.embedding import ddp_steps

ROOT = Path(__file__).parents[2]
WORLD = 2


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes ended with, and the bytes that it sent in a step."""
    folder = tmp_path_factory.mktemp("ddp")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.embedding.ddp_steps", str(folder), str(rank), str(WORLD)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in running:
            process.kill()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("kind", ddp_steps.KINDS)
def test_both_processes_end_alike(ranks, kind):
    first, second = (results[kind]["state"] for results in ranks)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("kind", ddp_steps.KINDS)
def test_two_processes_are_one_with_the_double_batch(ranks, kind):
    # Adagrad divides by gradients, and where these are tiny by their rounding errors.
    for name, value in ddp_steps.alone(kind).items():
        torch.testing.assert_close(ranks[0][kind]["state"][name], value, atol=1e-4, rtol=1e-4)


def test_a_table_was_trained(ranks):
    state = ranks[0]["tensor train"]["state"]
    before = ddp_steps.Scorer("tensor train", seed=0).state_dict()
    for name in before:
        moved = not torch.equal(state[name], before[name])
        assert moved == (name != "table.row_order.place"), name


def test_communication_falls_with_the_compression(ranks):
    sent = {kind: ranks[0][kind]["bytes"] for kind in ddp_steps.KINDS}
    for kind in ddp_steps.KINDS:
        model = ddp_steps.Scorer(kind, seed=0)
        assert sent[kind] == 4 * sum(p.numel() for p in model.parameters())
    table = ddp_steps.Scorer("tensor train", seed=0).table
    layer = 4 * 3 * (ddp_steps.D + 1)
    fall = (sent["full table"] - layer) / (sent["tensor train"] - layer)
    assert fall == pytest.approx(table.compression_ratio)
    assert fall > 20
