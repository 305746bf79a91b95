"""Accuracy of training in real bits: packed features, and 4-bit activations kept for backward."""

from __future__ import annotations

import argparse
import logging
import warnings
from dataclasses import dataclass
from functools import partial

from rich.progress import Progress

from benchmarks.finished_fits import FinishedFits
from benchmarks.intervals import interval_fields, plus_minus, verdict_on_drop
from benchmarks.output import Output, Row
from benchmarks.recipes import build
from lit_gnncompress import compare_by_seed
from lit_gnncompress.callbacks import CompressActivations
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.results import Interval

DATASETS, MODELS = ("PubMed", "Computers"), ("gcn", "gat")
ALLOWED_DROP = 0.4  # points of accuracy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--dataset", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--bits", type=int, default=4, help="of activations (default: 4)")
    parser.add_argument("--seeds", type=int, default=10, help="paired seeds (default: 10)")
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")


@dataclass(frozen=True)
class Pair:
    """The fits of a seed.

    Attributes:
        plain: Test accuracy in fp32, percent.
        in_bits: Test accuracy trained in bits, percent.
        kept: Bytes of activations kept for the backward pass, as a share of those in fp32.
    """

    plain: float
    in_bits: float
    kept: float


def run(args: argparse.Namespace, output: Output) -> None:
    """Trains each seed twice, in fp32 and in bits, and tests the best weights of both once."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    path = None if args.json is None else args.json.with_suffix(".fits.jsonl")
    finished = FinishedFits(Pair, path)
    jobs = [(d, m) for d in args.dataset for m in args.model]
    with Progress(console=output.console) as progress:
        task = progress.add_task("seeds", total=len(jobs) * args.seeds)
        for dataset, model in jobs:
            pairs = []
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                key = {"dataset": dataset, "model": model, "bits": args.bits, "seed": seed}
                fits = partial(_fit, dataset, model, args.bits, seed, args.root)
                pairs.append(finished.once(key, fits))
                progress.advance(task)
                progress.console.print(
                    f"{dataset} {model} seed {seed}: {pairs[-1].plain:.1f} in full precision, "
                    f"{pairs[-1].in_bits:.1f} in bits"
                )
            row = {
                "dataset": dataset,
                "model": model,
                "activation_bits": args.bits,
                "seeds": args.seeds,
                "first_seed": args.first_seed,
                "fp32_acc": Interval.of(pair.plain for pair in pairs).mean,
                "bits_acc": Interval.of(pair.in_bits for pair in pairs).mean,
                **interval_fields("delta", [pair.in_bits - pair.plain for pair in pairs]),
                "activation_bytes_ratio": pairs[-1].kept,
            }
            output.add(row, key=("dataset", "model", "activation_bits"))


def _fit(dataset: str, model: str, bits: int, seed: int, root: str | None) -> Pair:
    data = GraphDataModule(dataset, root=root)
    [plain] = compare_by_seed(partial(build, dataset, model, data), [seed]).results
    compress = CompressActivations(bits)
    data = GraphDataModule(dataset, root=root)  # packing replaces its features
    own = partial(build, dataset, model, data, packed=True, callbacks=[compress])
    [in_bits] = compare_by_seed(own, [seed]).results
    return Pair(
        100 * plain.full_precision,
        100 * in_bits.quantized,
        compress.kept_bytes / compress.full_bytes,
    )


def table(rows: list[Row]) -> str:
    """Both accuracies, and whether their difference is within the goal."""
    lines = [
        "Features in the bits of the recipes, `packed=True`, and `CompressActivations`, in one "
        "fit, against the same fit in fp32.",
        "",
        "| | model | bits of activations | seeds | fp32 % | in bits % | Δ points (95 %) "
        "| activations kept, of fp32 | goal |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['dataset']} | {row['model'].upper()} | {row['activation_bits']} "
            f"| {row['first_seed']}–{row['first_seed'] + row['seeds'] - 1} "
            f"| {row['fp32_acc']:.1f} | {row['bits_acc']:.1f} "
            f"| {plus_minus(row, 'delta')} | {row['activation_bytes_ratio']:.2f} "
            f"| {verdict_on_drop(row, 'delta', ALLOWED_DROP)} |"
        )
    return "\n".join(lines)
