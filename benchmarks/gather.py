"""Rows of a mini-batch from packed features against ``index_select`` from fp32."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from rich.progress import Progress

from benchmarks.output import Output, Row
from benchmarks.timing import median_seconds, threads
from lit_gnncompress.kernels import gather_dequantize, quantize_pack


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=65_536, help="of a batch (default: 65536)")
    parser.add_argument("--width", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--bits", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])


def run(args: argparse.Namespace, output: Output) -> None:
    """Times random rows, the features larger than the caches."""
    jobs = [(width, count) for width in args.width for count in args.threads]
    with Progress(console=output.console) as progress:
        task = progress.add_task("widths × threads", total=len(jobs))
        for width, count in jobs:
            with threads(count):
                for row in _rows(args.nodes, args.rows, width, args.bits):
                    row = {"dataset": f"{args.nodes:,} random rows", "threads": count, **row}
                    output.add(row, key=("dataset", "width", "threads", "bits"))
            progress.advance(task)


def _rows(nodes: int, rows: int, width: int, all_bits: list[int]) -> list[Row]:
    torch.manual_seed(0)
    x, index = torch.rand(nodes, width), torch.randint(nodes, (rows,))
    ways: dict[str, Any] = {"fp32": lambda: x.index_select(0, index)}
    ratios = {}
    for bits in all_bits:
        lo, scale = torch.zeros(1), torch.full((1,), 1 / (2**bits - 1))
        packed = quantize_pack(x, lo, scale, bits)
        ratios[bits] = 4 * x.numel() / packed.numel()
        ways[str(bits)] = partial(gather_dequantize, packed, lo, scale, bits, width, index)
    seconds = median_seconds(ways)
    return [
        {
            "bits": bits,
            "width": width,
            "batch": rows,
            "ms": 1e3 * seconds[str(bits)],
            "time_ratio": seconds["fp32"] / seconds[str(bits)],
            "memory_ratio": ratios[bits],
        }
        for bits in all_bits
    ]


def table(rows: list[Row]) -> str:
    """A line for each width, number of threads and bits."""
    lines = [
        "| | batch | F | threads | bits | ms | time of index_select / ours | x smaller |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['dataset']} | {row['batch']:,} | {row['width']} | {row['threads']} "
            f"| {row['bits']} | {row['ms']:.3f} | **{row['time_ratio']:.2f}×** "
            f"| {row['memory_ratio']:.0f}× |"
        )
    return "\n".join(lines)
