"""SGQuant's Fig. 7: error against bytes for uniform, LWQ, LWQ+CWQ and LWQ+CWQ+TAQ."""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path
from typing import get_args

from rich.progress import Progress

from benchmarks.checkpoints import SPLITS, PairedCheckpoints
from benchmarks.intervals import interval_fields, plus_minus
from benchmarks.output import Output, Row
from benchmarks.recipes import DATASETS, MODELS
from benchmarks.search import SEARCH_SEEDS
from lit_gnncompress import BitPlan
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.search import Space, search
from lit_gnncompress.search.space import Group

_NAMES: dict[str, Group] = {
    "uniform": "all",
    "LWQ": "layer",
    "LWQ+CWQ": "site",
    "LWQ+CWQ+TAQ": "bucket",
}
_COLORS = ("#a8b3bf", "#4f86b5", "#3a9d6e", "#d1603d")
assert set(_NAMES.values()) <= set(get_args(Group))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--dataset", choices=DATASETS, default="Cora")
    parser.add_argument("--model", choices=MODELS, default="gat")
    parser.add_argument("--measured", type=int, default=60, help="plans a search (default: 60)")
    parser.add_argument(
        "--bounds",
        type=float,
        nargs="+",
        default=[0.0, 0.002, 0.005, 0.01, 0.02, 0.05],
        help="drops in validation accuracy that are searched for",
    )
    parser.add_argument("--checkpoints", type=int, default=5, help="in search, and in test")
    parser.add_argument("--picture", type=Path, help="PNG of error against bytes")
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")


def run(args: argparse.Namespace, output: Output) -> None:
    """For each granularity, the smallest plan within each bound, and its error on fresh seeds."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    data = GraphDataModule(args.dataset, root=args.root)
    with Progress(console=output.console) as progress:
        task = progress.add_task("fits", total=2 * args.checkpoints)
        chosen_by, fresh = (
            PairedCheckpoints(
                args.dataset,
                args.model,
                data,
                range(first, first + args.checkpoints),
                lambda: progress.advance(task),
            )
            for first in (SEARCH_SEEDS, SEARCH_SEEDS + args.checkpoints)
        )
        sizes = chosen_by.sizes()
        error_fp32 = fresh.test_error(BitPlan())
        task = progress.add_task("searches", total=len(_NAMES) * len(args.bounds))
        for name, group in _NAMES.items():
            # Codes of features and of attention: components differ in both.
            space = Space(sizes, group=group, degree_splits=SPLITS, count="stored")
            for bound in args.bounds:
                best = search(
                    space, chosen_by.validation, max_drop=bound, trials=args.measured
                ).best
                plan = BitPlan() if best is None else best.plan
                delta = interval_fields("delta", [-gain for gain in fresh.test_delta(plan)])
                row = {
                    "dataset": args.dataset,
                    "model": args.model,
                    "granularity": name,
                    "bound": bound,
                    "dimensions": len(space.dimensions),
                    "bytes": space.bytes_fp32 if best is None else best.bytes,
                    "bytes_fp32": space.bytes_fp32,
                    "saving": 1.0 if best is None else best.saving,
                    "test_error": error_fp32 + delta["delta"],
                    "test_error_fp32": error_fp32,
                    **delta,
                    "plan": plan.to_dict(),
                }
                output.add(row, key=("dataset", "model", "granularity", "bound"))
                progress.advance(task)
    if args.picture is not None:
        own = [r for r in output.rows if (r["dataset"], r["model"]) == (args.dataset, args.model)]
        _plot(own, args.picture)


def table(rows: list[Row]) -> str:
    """The rows, a line each."""
    lines = [
        "| | model | granularity | dimensions | allowed drop, points | kB | saving "
        "| test error in fp32 % | quantized % | Δ points |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['dataset']} | {row['model'].upper()} | {row['granularity']} "
            f"| {row['dimensions']} | {100 * row['bound']:.1f} | {row['bytes'] / 1e3:,.0f} "
            f"| {row['saving']:.1f}× | {row['test_error_fp32']:.2f} | {row['test_error']:.2f} "
            f"| {plus_minus(row, 'delta')} |"
        )
    return "\n".join(lines)


def _plot(rows: list[Row], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, color in zip(_NAMES, _COLORS, strict=True):
        own = [r for r in rows if r["granularity"] == name and r["saving"] > 1]  # fp32: the line
        own.sort(key=lambda r: r["bytes"])
        places = [r["bytes"] / 1e3 for r in own]
        errors = [r["test_error"] for r in own]
        widths = [r["delta_ci95"] or 0 for r in own]
        axes.errorbar(
            places, errors, widths, fmt="o-", color=color, label=name, markersize=4,
            capsize=2, elinewidth=0.8, alpha=0.9,
        )  # fmt: skip
    axes.axhline(
        rows[0]["test_error_fp32"], color="#5b6470", linestyle="--", linewidth=1, label="fp32"
    )
    axes.set(
        xlabel="features and attention, kB",
        ylabel="test error, %; bars: 95 % of the paired difference",
        xscale="log",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    size = f"{rows[0]['bytes_fp32'] / 1e3:,.0f} kB in fp32"
    axes.set_title(f"{rows[0]['dataset']} {rows[0]['model'].upper()}, {size}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")
