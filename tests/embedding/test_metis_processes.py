"""Parts that several processes cut: the same as by one, whole, and silent."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_gnncompress.embedding import hierarchical_order
from lit_gnncompress.embedding.metis_processes import num_processes
from tests.embedding.graphs import grid, random_edges

GRID, ROWS = grid(40), (8, 5, 42)
SCRIPT = """
import torch
from lit_gnncompress.embedding import hierarchical_order

edges = torch.tensor([list(range(400)), list(range(1, 401))])
print(hierarchical_order(edges, 401, (6, 5, 14), num_workers=2).place.sum().item())
"""


@pytest.mark.parametrize("weighted", [False, True])
def test_any_number_of_processes_finds_the_same(weighted):
    edges = random_edges(N := 400, 3000)
    weight = torch.rand(3000) if weighted else None
    places = [
        hierarchical_order(edges, N, (6, 5, 14), edge_weight=weight, num_workers=workers).place
        for workers in (1, 2, 3)
    ]
    assert torch.equal(places[0], places[1])
    assert torch.equal(places[0], places[2])


def test_a_script_without_a_guard_may_order(tmp_path):
    """Processes must not run the user's script again; nothing is left behind or printed."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    (tmp_path / "scratch").mkdir()
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120,
        cwd=Path(__file__).parents[2], env={"PYTHONPATH": ".", "TMPDIR": str(tmp_path / "scratch")},
    )  # fmt: skip
    order = hierarchical_order(
        torch.tensor([list(range(400)), list(range(1, 401))]), 401, (6, 5, 14), num_workers=1
    )
    assert done.stdout.split() == [str(int(order.place.sum()))], done.stderr
    assert done.stderr == ""
    assert list((tmp_path / "scratch").iterdir()) == []


def test_small_graphs_need_no_processes():
    assert num_processes(1000, None) == 1
    assert num_processes(1000, 3) == 3
    assert num_processes(10**8, None) >= 1
    assert num_processes(10**8, 1) == 1
