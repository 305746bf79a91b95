"""Aggregation from packed rows against torch's CSR product, PyG's scatter, and our own fp32."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor
from torch_geometric.utils import scatter

from benchmarks.graphs import SYNTHETIC, edges_of, torch_csr
from benchmarks.output import Output, Row
from benchmarks.timing import median_seconds, threads
from lit_gnncompress.kernels import Adjacency, aggregate, packed_aggregate, quantize_pack

GRAPHS = ("Cora", "PubMed", "Computers", SYNTHETIC)
_SCATTER_LIMIT = 2**31  # bytes of messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--dataset", nargs="+", choices=GRAPHS, default=GRAPHS)
    parser.add_argument("--width", nargs="+", type=int, default=[16, 64, 128, 256])
    parser.add_argument("--bits", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")


def run(args: argparse.Namespace, output: Output) -> None:
    """Times the weighted sum over each node's edges."""
    jobs = [(d, w, t) for d in args.dataset for w in args.width for t in args.threads]
    with Progress(console=output.console) as progress:
        task = progress.add_task("graphs × widths × threads", total=len(jobs))
        for dataset, width, count in jobs:
            edge_index, num_nodes = edges_of(dataset, args.root)
            with threads(count):
                for row in _rows(edge_index, num_nodes, width, args.bits):
                    row = {"dataset": dataset, "width": width, "threads": count, **row}
                    output.add(row, key=("dataset", "width", "threads", "bits"))
            progress.advance(task)


def _rows(edge_index: Tensor, num_nodes: int, width: int, all_bits: list[int]) -> list[Row]:
    torch.manual_seed(0)
    x, weight = torch.rand(num_nodes, width), torch.rand(edge_index.size(1))
    adjacency = Adjacency.from_edge_index(edge_index[0], edge_index[1], num_nodes, num_nodes)
    matrix = torch_csr(edge_index, num_nodes, weight)
    ways: dict[str, Callable[[], Any]] = {
        "csr": lambda: torch.sparse.mm(matrix, x),
        "own": lambda: aggregate(x, adjacency, weight),
    }
    if 4 * width * edge_index.size(1) <= _SCATTER_LIMIT:
        ways["scatter"] = lambda: scatter(
            weight.unsqueeze(1) * x.index_select(0, edge_index[0]),
            edge_index[1],
            dim_size=num_nodes,
        )
    packed_bytes = {}
    for bits in all_bits:
        lo, scale = torch.zeros(1), torch.full((1,), 1 / (2**bits - 1))
        packed = quantize_pack(x, lo, scale, bits)
        packed_bytes[bits] = packed.numel()
        ways[str(bits)] = partial(
            packed_aggregate, packed, lo, scale, bits, width, adjacency, weight
        )
    seconds = median_seconds(ways)
    return [
        {
            "bits": bits,
            "edges": edge_index.size(1),
            "ms": 1e3 * seconds[str(bits)],
            "time_ratio": seconds["csr"] / seconds[str(bits)],
            "time_ratio_scatter": _over(seconds.get("scatter"), seconds[str(bits)]),
            "time_ratio_own_fp32": seconds["own"] / seconds[str(bits)],
            "memory_ratio": 4 * x.numel() / packed_bytes[bits],
        }
        for bits in all_bits
    ]


def _over(seconds: float | None, ours: float) -> float | None:
    return None if seconds is None else seconds / ours


def table(rows: list[Row]) -> str:
    """A line for each graph, width and number of threads."""
    lines = [
        "Time of the other / ours, from packed rows with one range.",
        "",
        "| | edges | F | threads | bits | ms | torch CSR | PyG gather + scatter | own fp32 "
        "| x smaller |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        scattered = row["time_ratio_scatter"]
        lines.append(
            f"| {row['dataset']} | {row['edges']:,} | {row['width']} | {row['threads']} "
            f"| {row['bits']} | {row['ms']:.3f} | **{row['time_ratio']:.1f}×** "
            f"| {'messages too large' if scattered is None else f'{scattered:.1f}×'} "
            f"| {row['time_ratio_own_fp32']:.2f}× | {row['memory_ratio']:.0f}× |"
        )
    return "\n".join(lines)
