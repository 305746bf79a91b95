"""The first linear layer from packed features against torch's, from dense and from CSR features.

All take the weight as ``torch.nn.Linear`` holds it, (outputs, features).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.output import Output, Row
from benchmarks.timing import median_seconds, threads
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.kernels import packed_linear, packed_linear_int8, quantize_pack
from lit_gnncompress.kernels.packed_linear_int8 import quantize_weight
from lit_gnncompress.storage import pack

DATASETS = ("Cora", "CiteSeer", "PubMed", "Computers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--dataset", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--outputs", nargs="+", type=int, default=[32, 256])
    parser.add_argument("--bits", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")


def run(args: argparse.Namespace, output: Output) -> None:
    """Times X W for the features of each data set: dense codes, int8 weights, sparse codes."""
    jobs = [(d, o, t) for d in args.dataset for o in args.outputs for t in args.threads]
    with Progress(console=output.console) as progress:
        task = progress.add_task("data × outputs × threads", total=len(jobs))
        for dataset, outputs, count in jobs:
            x = GraphDataModule(dataset, root=args.root).data.x
            with threads(count):
                for row in _rows(x, outputs, args.bits):
                    row = {"dataset": dataset, "outputs": outputs, "threads": count, **row}
                    output.add(row, key=("dataset", "outputs", "threads", "bits", "codes"))
            progress.advance(task)


def _rows(x: Tensor, outputs: int, all_bits: list[int]) -> list[Row]:
    torch.manual_seed(0)
    weight = torch.randn(outputs, x.size(1))
    int8 = quantize_weight(weight)
    csr = x.to_sparse_csr()
    ways: dict[str, Callable[[], Any]] = {
        "mm": lambda: linear(x, weight),
        "csr": lambda: linear(csr, weight),
    }
    sizes = {}
    for bits in all_bits:
        lo, scale = torch.zeros(1), (x.max() / (2**bits - 1)).view(1)
        packed = quantize_pack(x, lo, scale, bits)
        smallest = pack(x, bits).blocks[0]
        arguments = (packed, lo, scale, bits, x.size(1))
        forms: dict[str, tuple[int, Callable[[], Any]]] = {
            "dense": (packed.numel(), partial(packed_linear, *arguments, weight)),
            "dense, int8 weight": (
                packed.numel(),
                partial(packed_linear_int8, *arguments, *int8),
            ),
        }
        if smallest.name != "dense":
            forms[smallest.name] = smallest.nbytes, partial(smallest.linear, weight)
        for name, (size, way) in forms.items():
            ways[f"{bits} {name}"], sizes[bits, name] = way, size
    with torch.no_grad():
        seconds = median_seconds(ways)
    return [
        {
            "bits": bits,
            "codes": name,
            "width": x.size(1),
            "ms": 1e3 * seconds[f"{bits} {name}"],
            "time_ratio": seconds["mm"] / seconds[f"{bits} {name}"],
            "time_ratio_csr": seconds["csr"] / seconds[f"{bits} {name}"],
            "memory_ratio": 4 * x.numel() / size,
        }
        for (bits, name), size in sizes.items()
    ]


def table(rows: list[Row]) -> str:
    """A line for each data set, number of outputs and threads, and form of the codes."""
    lines = [
        "| | F | outputs | threads | bits | codes | ms | time of torch's linear / ours "
        "| of torch's from CSR / ours | x smaller |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['dataset']} | {row['width']} | {row['outputs']} | {row['threads']} "
            f"| {row['bits']} | {row['codes']} | {row['ms']:.3f} | **{row['time_ratio']:.1f}×** "
            f"| {row['time_ratio_csr']:.1f}× | {row['memory_ratio']:.0f}× |"
        )
    return "\n".join(lines)
