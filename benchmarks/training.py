"""A training step end to end: packed against PyG on ``edge_index`` and on CSR."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial

from torch.nn import Module
from torch_geometric.data import Data

from benchmarks import deployed
from benchmarks.output import Output, Row
from benchmarks.recipes import DATASETS
from benchmarks.timing import median_seconds
from lit_gnncompress.storage.activations import ActivationCompressor

_KINDS = ("pyg", "packed", "compressed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--dataset", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--model", nargs="+", choices=deployed.MODELS, default=deployed.MODELS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument(
        "--activation-bits", type=int, default=4, help="kept for the backward pass (default: 4)"
    )
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")


def run(args: argparse.Namespace, output: Output) -> None:
    """Times forward and backward pass of the same network in its forms, without the optimizer."""
    deployed.measure_all(args, output, partial(_row, bits=args.activation_bits))


def _row(dataset: str, model: str, module: Module, data: Data, bits: int) -> Row:
    csr = deployed.with_csr(model, module, data)
    forms = {"": (module, data), "_csr": csr}
    ways: dict[str, Callable[[], None]] = {}
    for name, form in forms.items():
        in_bits = deployed.packed_to_train(dataset, model, *form)
        compressor = ActivationCompressor(bits)
        ways[f"packed{name}"] = partial(deployed.step, *in_bits)
        ways[f"compressed{name}"] = partial(deployed.compressed_step, compressor, *in_bits)
        ways[f"pyg{name}"] = partial(deployed.step, copy.deepcopy(form[0]).train(), form[1])
    seconds = median_seconds(ways)
    best = {kind: min(seconds[kind + name] for name in forms) for kind in _KINDS}
    return {
        **{f"ms_{name}": 1e3 * value for name, value in seconds.items()},
        "time_ratio": best["pyg"] / best["packed"],
        "time_ratio_compressed": best["pyg"] / best["compressed"],
        "activation_bits": bits,
    }


def table(rows: list[Row]) -> str:
    """A line for each network and number of threads."""
    lines = [
        "Milliseconds of a forward and a backward pass: of PyG, with `packed=True`, and with "
        "`CompressActivations` besides, each on `edge_index` / on CSR. The ratios are those of the "
        "better form of each.",
        "",
        "| | model | threads | PyG | packed | with activations in bits | packed, faster "
        "| with activations in bits, faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = " | ".join(
            f"{row[f'ms_{kind}']:.2f} / {row[f'ms_{kind}_csr']:.2f}" for kind in _KINDS
        )
        lines.append(
            f"| {row['dataset']} | {row['model'].upper()} | {row['threads']} | {times} "
            f"| **{row['time_ratio']:.1f}×** | {row['time_ratio_compressed']:.1f}× |"
        )
    return "\n".join(lines)
