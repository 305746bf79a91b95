"""A forward pass end to end: packed against PyG on ``edge_index`` and on CSR.

All in inference mode, as Lightning's Trainer tests and predicts.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch.nn import Module
from torch_geometric.data import Data

from benchmarks import deployed
from benchmarks.output import Output, Row
from benchmarks.recipes import DATASETS
from benchmarks.timing import median_seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--dataset", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--model", nargs="+", choices=deployed.MODELS, default=deployed.MODELS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")


def run(args: argparse.Namespace, output: Output) -> None:
    """Times the same network in its forms, torch's and numba's threads in one process."""
    deployed.measure_all(args, output, _row)


def _row(dataset: str, model: str, module: Module, data: Data) -> Row:
    csr = deployed.with_csr(model, module, data)
    forms = {
        "pyg": (module, data),
        "pyg_csr": csr,
        "packed": deployed.packed(dataset, model, module, data),
        "packed_csr": deployed.packed(dataset, model, *csr),
    }
    with torch.inference_mode():
        ways = {name: partial(deployed.forward, *form) for name, form in forms.items()}
        seconds = median_seconds(ways)
        expected = deployed.forward(*forms["packed"])
        deviation = (deployed.forward(*forms["packed_csr"]) - expected).abs().max()
    ours = min(seconds["packed"], seconds["packed_csr"])
    peer = min(seconds["pyg"], seconds["pyg_csr"])
    return {
        **{f"ms_{name}": 1e3 * value for name, value in seconds.items()},
        "time_ratio": peer / ours,
        "time_ratio_edge_index": seconds["pyg"] / seconds["packed"],
        "deviation_of_forms": float(deviation),
    }


def table(rows: list[Row]) -> str:
    """A line for each network and number of threads."""
    lines = [
        "Milliseconds of a forward pass; the ratio is that of the better form of each.",
        "",
        "| | model | threads | PyG | PyG on CSR | packed | packed on CSR | faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = " | ".join(
            f"{row[f'ms_{name}']:.2f}" for name in ("pyg", "pyg_csr", "packed", "packed_csr")
        )
        lines.append(
            f"| {row['dataset']} | {row['model'].upper()} | {row['threads']} | {times} "
            f"| **{row['time_ratio']:.1f}×** |"
        )
    return "\n".join(lines)
