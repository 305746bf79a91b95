"""Peak of tensor memory in inference and in a training step: fp32 against packed."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.progress import Progress
from torch import nn
from torch_geometric.data import Data

from benchmarks import deployed
from benchmarks.output import Output, Row
from benchmarks.peak import tensor_peak
from benchmarks.recipes import DATASETS
from lit_gnncompress.storage.activations import ActivationCompressor

ALLOWED = {  # of the fp32 peak, in inference and in a training step
    "Cora": (1 / 10, 1 / 3),
    "CiteSeer": (1 / 10, 1 / 3),
    "PubMed": (1 / 8, 1 / 3),
    "Computers": (1 / 8, 1 / 3),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--dataset", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--model", nargs="+", choices=deployed.MODELS, default=deployed.MODELS)
    parser.add_argument(
        "--activation-bits", type=int, default=4, help="kept for the backward pass (default: 4)"
    )
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")


def run(args: argparse.Namespace, output: Output) -> None:
    """Measures a forward pass, then a training step, of the same network in its three forms."""
    jobs = [(d, m) for d in args.dataset for m in args.model]
    with Progress(console=output.console) as progress:
        task = progress.add_task("networks", total=len(jobs))
        for dataset, model in jobs:
            data = deployed.load(dataset, args.root)
            module = deployed.build(model, data).eval()
            for what, row in (
                ("inference", _inference(dataset, model, module, data)),
                ("training step", _training(dataset, model, module, data, args.activation_bits)),
            ):
                row = {"dataset": dataset, "model": model, "what": what, **row}
                output.add(row, key=("dataset", "model", "what"))
            progress.advance(task)


def _inference(dataset: str, model: str, module: nn.Module, data: Data) -> Row:
    forms = {
        "peak_fp32": (module, data),
        "peak_fp32_csr": deployed.with_csr(model, module, data),
        "peak_packed": deployed.packed(dataset, model, module, data),
    }
    with torch.no_grad():
        peaks = {name: _peak(deployed.forward, *form) for name, form in forms.items()}
    return _row(peaks)


def _training(dataset: str, model: str, module: nn.Module, data: Data, bits: int) -> Row:
    fp32 = copy.deepcopy(module).train()
    own_step = partial(deployed.compressed_step, ActivationCompressor(bits))
    in_bits = deployed.packed_to_train(dataset, model, module, data)
    peaks = {
        "peak_fp32": _peak(deployed.step, fp32, data),
        "peak_fp32_csr": _peak(deployed.step, *deployed.with_csr(model, fp32, data)),
        "peak_packed": _peak(own_step, *in_bits),
    }
    return _row(peaks) | {"activation_bits": bits}


def _peak(run: Callable[..., Any], module: nn.Module, data: Data) -> int:
    def once() -> None:
        deployed.clear(module)
        run(module, data)

    once()
    once()
    return tensor_peak(once, [*deployed.inputs(data), *deployed.weights(module)])


def _row(peaks: dict[str, int]) -> Row:
    return peaks | {"ratio": peaks["peak_fp32"] / peaks["peak_packed"]}


def table(rows: list[Row]) -> str:
    """A line for each network, whole numbers of kilobytes."""
    lines = [
        "Inputs, weights and all tensors in between; decimal MB.",
        "",
        "| | model | what | fp32, PyG | fp32, PyG on CSR | packed | smaller | goal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        allowed = ALLOWED[row["dataset"]][row["what"] != "inference"]
        reached = row["peak_packed"] <= allowed * row["peak_fp32"]
        sizes = " | ".join(
            f"{row[name] / 1e6:.1f}" for name in ("peak_fp32", "peak_fp32_csr", "peak_packed")
        )
        lines.append(
            f"| {row['dataset']} | {row['model'].upper()} | {row['what']} | {sizes} "
            f"| **{row['ratio']:.1f}×** | {1 / allowed:.0f}× {'reached' if reached else 'missed'} |"
        )
    return "\n".join(lines)
