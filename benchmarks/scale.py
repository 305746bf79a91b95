"""Packing, a layer and a table at the sizes of Reddit and of ogbn-products."""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch_geometric.data import Data

from benchmarks import deployed
from benchmarks.ordering import communities
from benchmarks.output import Output, Row
from benchmarks.peak import tensor_peak
from benchmarks.process_peak import ProcessPeak, own_process
from benchmarks.timing import median_seconds
from lit_gnncompress import BitPlan, TTEmbedding, pack_file, quantize_
from lit_gnncompress.embedding import graph_rows
from lit_gnncompress.storage.inference import pack_for_inference

_BITS = 4  # of the features, as they are packed
_HIDDEN_BITS = 8
_RANK, _COLUMNS = 16, (4, 5, 5)
_BATCH = 65_536
_ROUNDS = 3


@dataclass(frozen=True)
class Size:
    """Of a graph.

    Attributes:
        nodes: How many.
        edges: How many, both ways counted once.
        width: Features of a node.
        classes: Outputs of the network.
    """

    nodes: int
    edges: int
    width: int
    classes: int


GRAPHS = {
    "Reddit": Size(232_965, 57_307_946, 602, 41),
    "ogbn-products": Size(2_449_029, 61_859_140, 100, 47),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--graph", nargs="+", choices=GRAPHS, default=list(GRAPHS))
    parser.add_argument("--what", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="of nodes and edges (default: 1)"
    )


def run(args: argparse.Namespace, output: Output) -> None:
    """Does each piece of work in a process of its own, whose memory is watched."""
    jobs = [(graph, what) for graph in args.graph for what in args.what]
    with Progress(console=output.console) as progress:
        task = progress.add_task("work", total=len(jobs))
        for graph, what in jobs:
            progress.update(task, description=f"{graph}, {what}")
            full = GRAPHS[graph]
            size = replace(
                full,
                nodes=round(args.fraction * full.nodes),
                edges=round(args.fraction * full.edges),
            )
            with own_process() as (pool, pid), ProcessPeak(pid) as peak:
                measured = pool.submit(WORK[what], size).result()
            row = {
                "graph": graph,
                "fraction": args.fraction,
                "nodes": size.nodes,
                "edges": size.edges,
                "width": size.width,
                "what": what,
                **measured,
                "process_bytes": peak.bytes,
            }
            output.add(row, key=("graph", "fraction", "what"))
            progress.advance(task)


def pack_features(size: Size) -> Row:
    """A file of float32 to one of codes; its time is that of the whole call."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "features.npy"), Path(folder, "features.safetensors")
        _write_features(source, size)
        start = time.perf_counter()
        pack_file(source, target, _BITS, progress=False)
        seconds = time.perf_counter() - start
        sizes = {"fp32": source.stat().st_size, "ours": target.stat().st_size}
    return _row(sizes, {"ours": seconds})


def _write_features(path: Path, size: Size) -> None:
    """Random numbers, a block at a time: the process is to need little memory."""
    random = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (size.nodes, size.width))
    for first in range(0, size.nodes, 2**14):
        block = file[first : first + 2**14]
        block[:] = random.standard_normal(block.shape, dtype=np.float32)
    file.flush()


def forward(size: Size) -> Row:
    """A GCN of two layers, hidden width 64, all nodes at a time: torch's CSR product against ours.

    Messages of PyG's edge lists would take edges × width numbers, and do not fit.
    """
    data = _graph(size)
    module = deployed.build("gcn", data).eval()
    module, data = deployed.with_csr("gcn", module, data)
    packed = copy.deepcopy(module)
    plan = BitPlan(features={"convs.0": _BITS, "convs.1": _HIDDEN_BITS})
    forms = {
        "fp32": (module, data),
        "ours": (packed, pack_for_inference(quantize_(packed, plan), data)),
    }
    with torch.no_grad():
        ways = {name: partial(deployed.forward, *form) for name, form in forms.items()}
        seconds = median_seconds(ways, _ROUNDS)
        peaks = {
            name: tensor_peak(ways[name], [*deployed.inputs(data), *deployed.weights(module)])
            for name, (module, data) in forms.items()
        }
    return _row(peaks, seconds)


def _graph(size: Size) -> Data:
    torch.manual_seed(0)
    return Data(
        x=torch.randn(size.nodes, size.width),
        edge_index=communities(size.nodes, size.edges),
        y=torch.arange(size.nodes) % size.classes,
    )


def train_table(size: Size) -> Row:
    """Steps of Adam on a batch of random nodes, of a table for vectors in place of features.

    Bytes are those of parameters and of the optimizer's state; the full table has sparse gradients.
    """
    torch.manual_seed(0)
    rows = graph_rows(size.nodes)
    width = int(np.prod(_COLUMNS))
    full = nn.Embedding(size.nodes, width, sparse=True)
    ours = TTEmbedding(size.nodes, width, rank=_RANK, rows=rows, columns=_COLUMNS)
    tables: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {
        "fp32": (full, torch.optim.SparseAdam(full.parameters())),
        "ours": (ours, torch.optim.Adam(ours.parameters())),
    }
    batches = cycle(torch.randint(size.nodes, (8, _BATCH)))

    def step(table: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        table(next(batches)).square().mean().backward()
        optimizer.step()

    seconds = median_seconds({k: partial(step, *pair) for k, pair in tables.items()}, _ROUNDS)
    return _row({name: _state_bytes(*pair) for name, pair in tables.items()}, seconds)


def _state_bytes(table: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    states = [v for state in optimizer.state.values() for v in state.values()]
    kept = [*table.state_dict().values(), *(v for v in states if isinstance(v, Tensor))]
    return sum(tensor.numel() * tensor.element_size() for tensor in kept)


def _row(sizes: dict[str, int], seconds: dict[str, float]) -> Row:
    return {
        "bytes_fp32": sizes["fp32"],
        "bytes_ours": sizes["ours"],
        "memory_ratio": sizes["fp32"] / sizes["ours"],
        "seconds_fp32": seconds.get("fp32"),
        "seconds_ours": seconds["ours"],
        "time_ratio": seconds["fp32"] / seconds["ours"] if "fp32" in seconds else None,
    }


WORK: dict[str, Callable[[Size], Row]] = {
    "pack features": pack_features,
    "GCN forward": forward,
    "table, a step": train_table,
}


def table(rows: list[Row]) -> str:
    """A line for each graph and piece of work."""
    lines = [
        f"Random graphs and features of the sizes of the real ones. Features at {_BITS} bits; a "
        f"GCN of two layers, hidden width 64 at {_HIDDEN_BITS} bits, against torch's CSR product: "
        f"peak of its tensors, the graph among them; a table of rank {_RANK} for vectors of width "
        f"{int(np.prod(_COLUMNS))}, {_BATCH:,} nodes a step of Adam, against "
        "`nn.Embedding(sparse=True)`: parameters and the optimizer's state. Memory of the process "
        "is all of it: Python, torch, both forms, and what it took to make the graph; decimal MB.",
        "",
        "| size of | nodes | edges | what | fp32 MB | ours MB | smaller | fp32 s | ours s | faster "
        "| process |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        part = "" if row["fraction"] == 1 else f", {100 * row['fraction']:g} %"
        lines.append(
            f"| {row['graph']}{part} | {row['nodes']:,} | {row['edges']:,} | {row['what']} "
            f"| {row['bytes_fp32'] / 1e6:,.0f} | {row['bytes_ours'] / 1e6:,.1f} "
            f"| **{row['memory_ratio']:.1f}×** | {_number(row['seconds_fp32'])} "
            f"| {row['seconds_ours']:.3g} | {_number(row['time_ratio'], '×')} "
            f"| {row['process_bytes'] / 1e6:,.0f} MB |"
        )
    return "\n".join(lines)


def _number(value: Any, unit: str = "") -> str:
    return "" if value is None else f"{value:.3g}{unit}"
