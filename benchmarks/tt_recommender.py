"""Tensor trains against full tables, and against vectors of parts, in LightGCN."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

from rich.progress import Progress

from benchmarks.intervals import interval_fields, plus_minus
from benchmarks.node_tables import EQUAL_PARTS, FULL, MAIN, WITH_PARTS, Method
from benchmarks.output import Output, Row
from benchmarks.recommender_fits import Fit, RecommenderFits, Setting
from lit_gnncompress.results import Interval

DATASETS = ("Gowalla", "MovieLens1M")
PAPER = {"Gowalla": (18.30, 15.54)}  # recall and NDCG, %: arXiv 2002.02126, about 1000 epochs
TUNING_SEED = 100  # the first of those that settings are chosen by; far from those of tests
_LARGER_PARTS = Method("parts", part_size=60)
METHODS = {
    "full": FULL,
    **{
        f"tt{rank}-{order}": replace(MAIN, rank=rank, order=order)  # type: ignore[arg-type]
        for rank, order in product((8, 16), ("random", "flat_metis", "metis"))
    },
    "parts": EQUAL_PARTS,
    "parts60": _LARGER_PARTS,
    "tt8+parts": WITH_PARTS,
}
SETTINGS = {
    kind: tuple(Setting(lr, lambda_reg) for lr, lambda_reg in product(rates, (1e-4,)))
    for kind, rates in {
        "full": (0.02, 0.05, 0.1),
        "tt": (0.01, 0.03, 0.08),
        "parts": (0.02, 0.05, 0.1),
        "tt+parts": (0.01, 0.03, 0.08),
    }.items()
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5, help="paired seeds (default: 5)")
    parser.add_argument("--first-seed", type=int, default=0, help="(default: 0)")
    parser.add_argument(
        "--tuning-seeds", type=int, default=1, help=f"from {TUNING_SEED} on (default: 1)"
    )
    parser.add_argument("--epochs", type=int, default=40, help="of a fit, at most (default: 40)")
    parser.add_argument(
        "--patience", type=int, default=6, help="epochs without improvement (default: 6)"
    )
    parser.add_argument("--batch-size", type=int, default=65536, help="triples (default: 65536)")
    parser.add_argument("--layers", type=int, default=3, help="of LightGCN (default: 3)")
    parser.add_argument("--picture", type=Path, help="PNG of recall against reduction")
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")
    parser.add_argument("--cache-dir", help="folder of finished orders")


def run(args: argparse.Namespace, output: Output) -> None:
    """Tunes each method on seeds of its own by validation, and tests it once for each seed."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    path = None if args.json is None else args.json.with_suffix(".fits.jsonl")
    # The full table is what the others are measured by.
    methods = ["full", *(name for name in METHODS if name in args.methods and name != "full")]
    tuned = sum(len(SETTINGS[METHODS[name].kind]) for name in methods) * args.tuning_seeds
    total = len(args.datasets) * (tuned + len(methods) * args.seeds)
    with Progress(console=output.console) as progress:
        task = progress.add_task("fits", total=total)
        for dataset in args.datasets:
            fits = RecommenderFits(
                dataset,
                args.root,
                args.epochs,
                args.patience,
                args.batch_size,
                args.layers,
                path,
                args.cache_dir,
            )

            def done(name: str, dataset: str = dataset) -> None:
                progress.update(task, advance=1, description=f"{dataset}: {name}")

            for row in _rows(fits, methods, args, done):
                row = {"dataset": dataset, "model": f"LightGCN-{args.layers}", **row}
                output.add(row, key=("dataset", "model", "method", "seeds", "first_seed"))
                progress.console.print(
                    f"{dataset}, {row['method']}: recall {row['recall']:.2f} %, NDCG "
                    f"{row['ndcg']:.2f} % at {row['reduction']:.0f}×"
                )
    if args.picture is not None:
        from benchmarks.tt_recommender_picture import plot

        plot(output.rows, args.picture)


def _rows(
    fits: RecommenderFits,
    methods: Sequence[str],
    args: argparse.Namespace,
    done: Callable[[str], None],
) -> Iterator[Row]:
    full: list[Fit] = []
    for name in methods:
        method, tried = METHODS[name], []
        for setting in SETTINGS[method.kind]:
            of_setting = []
            for seed in range(TUNING_SEED, TUNING_SEED + args.tuning_seeds):
                of_setting.append(fits.validated(method, setting, seed))
                done(f"{name}, lr {setting.lr}")
            recall = Interval.of(fit.val_recall or 0.0 for fit in of_setting).mean
            epochs = round(Interval.of(fit.epochs for fit in of_setting).mean)
            tried.append((recall, setting, max(epochs, 1), of_setting[0].curve))
        val_recall, setting, epochs, curve = max(tried, key=lambda each: each[0])
        own = []
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            own.append(fits.tested(method, setting, seed, epochs))
            done(f"{name}, seed {seed}")
        full = full or own
        yield {
            "method": name,
            **_row(method, full, own),
            "val_recall": 100 * val_recall,
            "setting": asdict(setting),
            "epochs": epochs,
            "curve": curve,
            "seeds": args.seeds,
            "first_seed": args.first_seed,
        }


def _row(method: Method, full: Sequence[Fit], own: Sequence[Fit]) -> Row:
    recalls, of_full = ([100 * (fit.recall or 0.0) for fit in fits] for fits in (own, full))
    return {
        "kind": method.kind,
        "order": method.order,
        "rank": method.rank,
        "partitions": own[0].partitions,
        "params_full": full[0].parameters,
        "params_tt": own[0].parameters,
        "reduction": full[0].parameters / own[0].parameters,
        **interval_fields("recall", recalls),
        **interval_fields("ndcg", (100 * (fit.ndcg or 0.0) for fit in own)),
        **interval_fields("delta", (b - a for a, b in zip(of_full, recalls, strict=True))),
        "seconds_per_epoch": sum(fit.seconds / fit.epochs for fit in own) / len(own),
    }


def table(rows: list[Row]) -> str:
    """A line per method; recall and NDCG of the first 20, and the difference in recall."""
    lines = [
        "| | method | rank | parts | parameters | reduction | Recall@20 % | NDCG@20 % "
        "| Δ recall, points (95 %) | lr | epochs | s an epoch |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        delta = "" if row["kind"] == "full" else plus_minus(row, "delta")
        lines.append(
            f"| {row['dataset']} | {row['method']} | {row['rank'] or ''} "
            f"| {row['partitions'] or ''} | {row['params_tt']:,} | {row['reduction']:.1f}× "
            f"| {plus_minus(row, 'recall', sign='')} | {plus_minus(row, 'ndcg', sign='')} "
            f"| {delta} "
            f"| {row['setting']['lr']} | {row['epochs']} | {row['seconds_per_epoch']:.1f} |"
        )
    for dataset, (recall, ndcg) in PAPER.items():
        lines += ["", f"Published for {dataset}, 1000 epochs: recall {recall}, NDCG {ndcg}."]
    return "\n".join(lines)
