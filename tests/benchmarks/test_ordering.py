"""Orders are measured as they are: time, memory, edges inside parts."""

import argparse
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from benchmarks import ordering
from benchmarks.ordering import GRID, communities, equal_digits, grid, table
from benchmarks.output import Output
from benchmarks.process_peak import ProcessPeak, memory_of
from lit_gnncompress.embedding import NodeOrder


def test_a_run_leaves_a_row_for_each_graph_and_method(tmp_path):
    parser = argparse.ArgumentParser()
    ordering.add_arguments(parser)
    args = parser.parse_args(["--graph", GRID, "--method", "metis", "--large", "2000"])
    output = Output("ordering", table, tmp_path / "rows.json")
    ordering.run(args, output)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["graph"], row["nodes"]) for row in rows] == [(GRID, 25_600), ("communities", 2000)]
    assert rows[0]["equal_digits"][1] >= 0.89
    assert all(row["peak_bytes"] > row["graph_bytes"] for row in rows)
    assert "**0.8" in table(rows)


def test_shares_of_equal_digits():
    order = NodeOrder((2, 2, 2), torch.arange(8), "by hand")
    edges = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 7]])
    assert equal_digits(order, edges) == [0.75, 0.25]


def test_graphs_have_the_edges_that_are_told():
    assert grid(160).shape == (2, 2 * 50_880)
    edges = communities(1000, 5000)
    assert edges.shape == (2, 10_000)
    assert torch.equal(edges[:, :5000], edges[:, 5000:].flip(0))
    assert (edges.min(), edges.max()) == (0, 999)
    assert torch.equal(edges, communities(1000, 5000))


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux's /proc")
def test_memory_of_children_counts():
    enough = 2**28 - 2**25  # this process may give back some in between
    code = "held = bytearray(2**28); held[::4096] = b'1' * 2**16; print(flush=True); input()"
    with ProcessPeak(os.getpid()) as peak:
        before = memory_of(os.getpid())
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        child.stdout.readline()
        during = memory_of(os.getpid())
        while peak.bytes < before + enough:
            time.sleep(0.05)
        child.communicate(b"\n")
    assert during - before >= enough
    assert memory_of(os.getpid()) < before + enough
    assert memory_of(2**30) == 0
