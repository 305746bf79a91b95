"""Orders of nodes: time, memory, and the share of edges whose ends have equal leading digits."""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from functools import partial
from typing import Any, get_args

import torch
from rich.progress import Progress
from torch import Tensor

from benchmarks.output import Output, Row
from benchmarks.process_peak import ProcessPeak, own_process
from lit_gnncompress.data import load_graph, load_interactions
from lit_gnncompress.embedding import NodeOrder, graph_rows, hierarchical_order
from lit_gnncompress.embedding.order_methods import Method

GRID = "grid 160 × 160"
LARGE = "communities"
REAL = ("Computers", "PubMed", "Physics", "ProNE-DBLP", "Cornell5", "Gowalla")
METHODS = get_args(Method)
_GRID_SIDE, _GRID_ROWS = 160, (16, 16, 105)
_LARGE_NODES, _LARGE_EDGES = 2_400_000, 62_000_000
_LARGE_ROWS = (125, 140)  # of ogbn-products, as Nimble GNN Embedding has it; then the rest
_PART_SIZES = (50, 400)
_EDGES_AT_ONCE = 2**24
_KEY = ("graph", "rows", "method")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    names = (GRID, *REAL)
    parser.add_argument("--graph", nargs="*", choices=names, default=names, metavar="GRAPH")
    parser.add_argument(
        "--part-size",
        nargs="+",
        type=int,
        default=_PART_SIZES,
        help=f"nodes of a part of the first level of real graphs (default: {_PART_SIZES})",
    )
    parser.add_argument("--method", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument(
        "--large",
        nargs="?",
        type=int,
        const=_LARGE_NODES,
        help=f"a synthetic graph, too, ordered by METIS alone, of {_LARGE_NODES:,} nodes and "
        f"{_LARGE_EDGES:,} edges; or of as many nodes as are named, and edges in proportion",
    )
    parser.add_argument("--workers", type=int, help="processes (default: as many as cores)")
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")


def run(args: argparse.Namespace, output: Output) -> None:
    """Orders each graph by each method in a process of its own, twice."""
    jobs: list[tuple[str, int | None, str]] = [
        (name, size, method)
        for name in args.graph
        for size in (args.part_size if name in REAL else [None])
        for method in args.method
    ]
    if args.large is not None:
        jobs.append((LARGE, args.large, "metis"))
    with Progress(console=output.console) as progress:
        task = progress.add_task("orders", total=len(jobs))
        for name, size, method in jobs:
            progress.update(task, description=f"{name}, {method}")
            work = partial(measure, name, size, method, args.workers, args.root)
            with own_process() as (pool, pid), ProcessPeak(pid) as peak:
                row = pool.submit(work).result()
            output.add({**row, "peak_bytes": peak.bytes}, key=_KEY)
            progress.advance(task)


def measure(name: str, size: int | None, method: Any, workers: int | None, root: str | None) -> Row:
    """The row of one graph and method, without its memory."""
    edge_index, num_nodes, rows = load(name, size, root)
    with tempfile.TemporaryDirectory() as folder:
        order_once = partial(
            hierarchical_order, edge_index, num_nodes, rows, method=method, cache_dir=folder,
            progress=False, num_workers=workers,
        )  # fmt: skip
        load_before = os.getloadavg()[0]
        seconds, order = _timed(order_once)
        seconds_again, again = _timed(order_once)
    if not torch.equal(order.place, again.place):
        raise RuntimeError(f"{name}, {method}: the second call found another order.")
    return {
        "graph": name,
        "nodes": num_nodes,
        "edges": edge_index.size(1) // 2,
        "rows": list(rows),
        "method": method,
        "seconds": seconds,
        "seconds_again": seconds_again,
        "load_before": load_before,
        "graph_bytes": edge_index.numel() * edge_index.element_size(),
        "equal_digits": equal_digits(order, edge_index),
    }


def load(name: str, size: int | None, root: str | None) -> tuple[Tensor, int, tuple[int, ...]]:
    """Edges both ways, number of nodes, factors.

    Args:
        name: The graph.
        size: Nodes of a part of a real graph, or of the synthetic graph as a whole.
        root: Folder of the data.
    """
    if name == GRID:
        return grid(_GRID_SIDE), _GRID_SIDE**2, _GRID_ROWS
    if name == LARGE:
        assert size is not None
        edge_index = communities(size, round(_LARGE_EDGES / _LARGE_NODES * size))
        ways = math.prod(_LARGE_ROWS)
        return edge_index, size, (*_LARGE_ROWS, math.ceil(1.05 * size / ways))
    if name == "Gowalla":
        known = load_interactions(name, root)
        users, items = known.train
        num_users = int(users.max()) + 1
        edge_index = torch.stack([users, items + num_users])
        edge_index = torch.cat([edge_index, edge_index.flip(0)], 1)
        num_nodes = int(edge_index.max()) + 1
    else:
        data = load_graph(name, root, features=False)
        edge_index, num_nodes = data.edge_index, int(data.num_nodes)
    assert size is not None
    return edge_index, num_nodes, graph_rows(num_nodes, part_size=size)


def grid(side: int) -> Tensor:
    """Edges of a square grid, both ways."""
    node = torch.arange(side * side).view(side, side)
    right = torch.stack([node[:, :-1].flatten(), node[:, 1:].flatten()])
    down = torch.stack([node[:-1].flatten(), node[1:].flatten()])
    return torch.cat([right, down, right.flip(0), down.flip(0)], 1)


def communities(num_nodes: int, num_edges: int) -> Tensor:
    """Edges, both ways, of a graph with communities of all sizes inside each other.

    Nodes lie on a ring, and as many edges go as far as 1 to 2, as 2 to 4, and so on: half of them
    stay among the nearest few thousand of millions of nodes. Numbers tell nothing.
    """
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(num_nodes, (num_edges,), generator=generator)
    far = torch.rand(num_edges, generator=generator).mul_(math.log(num_nodes / 2)).exp_()
    target = source.add(far.long()).remainder_(num_nodes)
    del far
    number = torch.randperm(num_nodes, generator=generator)
    edge_index = torch.empty(2, 2 * num_edges, dtype=torch.int64)
    for end, nodes in enumerate((source, target)):
        edge_index[end, :num_edges] = number[nodes]
        edge_index[1 - end, num_edges:] = edge_index[end, :num_edges]
    return edge_index


def equal_digits(order: NodeOrder, edge_index: Tensor) -> list[float]:
    """Share of the edges whose ends are in the same part, by level."""
    shares = []
    for level in range(1, order.num_levels + 1):
        part = order.parts(level).int()
        same = sum(
            int((part[source] == part[target]).sum())
            for source, target in edge_index.split(_EDGES_AT_ONCE, 1)
        )
        shares.append(same / max(1, edge_index.size(1)))
    return shares


def _timed(run: Any) -> tuple[float, NodeOrder]:
    start = time.perf_counter()
    order = run()
    return time.perf_counter() - start, order


def table(rows: list[Row]) -> str:
    """A line for each graph and method."""
    lines = [
        "Share of the edges with equal leading digits: of the first, and of the first two; best of",
        "its graph and factors in bold. Memory of all processes together, with Python, torch and",
        "the edges themselves; decimal GB. Again: the same call a second time, out of the cache.",
        "",
        "| graph | nodes | edges | rows | order | first | first two | time | again | memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        same = ("graph", "rows")
        rivals = [other for other in rows if all(other[key] == row[key] for key in same)]
        best = max(rival["equal_digits"][-1] for rival in rivals)
        shares = [f"{share:.3f}" for share in row["equal_digits"]]
        if row["equal_digits"][-1] == best:
            shares[-1] = f"**{shares[-1]}**"
        lines.append(
            f"| {row['graph']} | {row['nodes']:,} | {row['edges']:,} "
            f"| {' × '.join(map(str, row['rows']))} | {row['method']} | {' | '.join(shares)} "
            f"| {row['seconds']:.2f} s | {row['seconds_again']:.2f} s "
            f"| {row['peak_bytes'] / 1e9:.2f} |"
        )
    return "\n".join(lines)
