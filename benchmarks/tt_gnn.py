"""Tensor trains against full tables, and against vectors of parts, on graphs without features."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from rich.progress import Progress

from benchmarks.intervals import interval_fields, plus_minus
from benchmarks.node_fits import Fit, NodeFits, Setting
from benchmarks.node_tables import EQUAL_PARTS, FULL, GROUPS, MAIN, PART_SIZES, Method
from benchmarks.output import Output, Row
from lit_gnncompress.results import Interval

DATASETS = ("Computers", "PubMed", "Physics", "ProNE-DBLP", "Cornell5")
MODELS = ("sage", "gat")
TUNING_SEED = 100  # the first of those that settings are chosen by; far from those of tests
SETTINGS = tuple(
    Setting(lr, weight_decay, std)
    for lr, weight_decay, std in product((0.01, 0.03), (0.0, 5e-4), (1.0,))
)
SMALL_STD = 0.1
BEST_PARTS = "vectors of parts, of the best size"
GOAL = 90  # times fewer parameters at which a tensor train is to be as good as the full table


@dataclass(frozen=True)
class Choice:
    """What validation chose: its accuracy, and of which method and setting."""

    val_acc: float
    method: Method
    setting: Setting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument(
        "--groups",
        nargs="+",
        choices=GROUPS,
        default=["core"],
        help="core: full table, tensor train and part vectors, and the same with a start by the "
        "structure of the graph; orders: other orders, and cores beside part vectors; sweep: ranks "
        "and sizes of parts (default: core)",
    )
    parser.add_argument("--seeds", type=int, default=5, help="paired seeds (default: 5)")
    parser.add_argument(
        "--first-seed", type=int, default=1, help="(default: 1; 0 numbers the nodes)"
    )
    parser.add_argument(
        "--tuning-seeds", type=int, default=1, help=f"from {TUNING_SEED} on (default: 1)"
    )
    parser.add_argument("--epochs", type=int, default=120, help="of a fit, at most (default: 120)")
    parser.add_argument(
        "--patience", type=int, default=20, help="epochs without improvement (default: 20)"
    )
    parser.add_argument("--picture", type=Path, help="PNG of accuracy against reduction")
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")
    parser.add_argument("--cache-dir", help="folder of finished orders")


def run(args: argparse.Namespace, output: Output) -> None:
    """Tunes each method on seeds of its own by validation, and tests it once for each seed."""
    path = None if args.json is None else args.json.with_suffix(".fits.jsonl")
    methods = [m for group in args.groups for m in GROUPS[group]]
    methods += [m for m in (FULL, MAIN) if m not in methods]  # what the others are measured by
    with Progress(console=output.console) as progress:
        fits_of_all = _number_of_fits(methods, EQUAL_PARTS in methods, args)
        task = progress.add_task("fits", total=fits_of_all)
        for dataset, model in product(args.datasets, args.models):
            fits = NodeFits(dataset, args.root, args.epochs, args.patience, path, args.cache_dir)

            def fit(
                method: Method, setting: Setting, seed: int, test: bool = False,
                fits: NodeFits = fits, model: str = model,
            ) -> Fit:  # fmt: skip
                progress.update(task, description=f"{fits.dataset} {model}: {method.name}")
                done = fits(model, method, setting, seed, test)
                progress.advance(task)
                return done

            for row in _rows(fit, methods, args):
                row = {"dataset": dataset, "model": model, **row}
                output.add(row, key=("dataset", "model", "method", "seeds", "first_seed"))
                progress.console.print(
                    f"{dataset} {model}, {row['method']}: {row['tt_acc']:.1f} at "
                    f"{row['reduction']:.0f}×, full table {row['full_acc']:.1f}"
                )
    if args.picture is not None:
        from benchmarks.tt_gnn_picture import plot

        plot(output.rows, args.picture)


def _tuned_by_itself(method: Method) -> bool:
    """The sweep of ranks and sizes has the settings of the configuration that it varies."""
    return method not in GROUPS["sweep"]


def _number_of_fits(
    methods: Sequence[Method], with_best_size: bool, args: argparse.Namespace
) -> int:
    tuned = sum(map(_tuned_by_itself, methods))
    a_pair = (tuned * (len(SETTINGS) + 2) + len(methods) - tuned) * args.tuning_seeds
    a_pair += len(methods) * args.seeds
    if with_best_size:
        a_pair += len(PART_SIZES) * args.tuning_seeds + args.seeds
    return len(args.datasets) * len(args.models) * a_pair


def _rows(
    fit: Callable[..., Fit], methods: Sequence[Method], args: argparse.Namespace
) -> Iterator[Row]:
    tuning = range(TUNING_SEED, TUNING_SEED + args.tuning_seeds)
    seeds = range(args.first_seed, args.first_seed + args.seeds)

    def best_of(choices: Iterable[tuple[Method, Setting]]) -> Choice:
        scores = [
            Choice(Interval.of(fit(m, s, seed).val_acc for seed in tuning).mean, m, s)
            for m, s in choices
        ]
        return max(scores, key=lambda choice: choice.val_acc)

    def tuned(method: Method) -> Choice:
        """First what matters most, then the size of the vectors at the start."""
        first = best_of(product([method], SETTINGS))
        smaller = replace(first.setting, std=SMALL_STD)
        return best_of([(method, first.setting), (method, smaller)])

    chosen = {method.name: tuned(method) for method in methods if _tuned_by_itself(method)}
    for method in methods:
        if method.name not in chosen:
            chosen[method.name] = best_of([(method, chosen[MAIN.name].setting)])
    if EQUAL_PARTS in methods:
        setting = chosen[EQUAL_PARTS.name].setting
        chosen[BEST_PARTS] = best_of((m, setting) for m in PART_SIZES)
    tested: dict[str, list[Fit]] = {}

    def tests(name: str) -> list[Fit]:
        if name not in tested:
            choice = chosen[name]
            tested[name] = [fit(choice.method, choice.setting, s, test=True) for s in seeds]
        return tested[name]

    for name, choice in chosen.items():
        if choice.method != FULL:
            row = _row(choice, tests(FULL.name), tests(name))
            parts = replace(EQUAL_PARTS, start=choice.method.start).name
            if choice.method.kind == "tt" and parts in chosen:
                row |= _difference("delta_parts", tests(parts), tests(name))
            yield {"method": name, **row, "seeds": args.seeds, "first_seed": args.first_seed}


def _row(choice: Choice, full: Sequence[Fit], own: Sequence[Fit]) -> Row:
    method = choice.method
    full_acc, own_acc = _accuracies(full), _accuracies(own)
    return {
        "rank": method.rank,
        "partitions": own[0].partitions,
        "order": method.order,
        "start": method.start,
        "params_full": full[0].parameters,
        "params_tt": own[0].parameters,
        "reduction": full[0].parameters / own[0].parameters,
        **interval_fields("full_acc", full_acc),
        **interval_fields("tt_acc", own_acc),
        **_difference("delta", full, own),
        "val_acc": 100 * choice.val_acc,
        "setting": asdict(choice.setting),
    }


def _difference(name: str, of: Sequence[Fit], to: Sequence[Fit]) -> Row:
    """By how many points tests of the same seeds differ."""
    pairs = zip(_accuracies(of), _accuracies(to), strict=True)
    return interval_fields(name, (b - a for a, b in pairs))


def _accuracies(fits: Sequence[Fit]) -> list[float]:
    return [100 * (fit.test_acc or 0.0) for fit in fits]


def table(rows: list[Row]) -> str:
    """A line per method, and for each graph whether the goals are reached."""
    lines = [
        "| | model | method | rank | parts | parameters | reduction | full table % | % "
        "| Δ points (95 %) | Δ to part vectors of equal size and start |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        to_parts = plus_minus(row, "delta_parts") if "delta_parts" in row else ""
        lines.append(
            f"| {row['dataset']} | {row['model'].upper()} | {row['method']} | {row['rank'] or ''} "
            f"| {row['partitions'] or ''} | {row['params_tt']:,} | {row['reduction']:.1f}× "
            f"| {row['full_acc']:.1f} | {row['tt_acc']:.1f} | {plus_minus(row, 'delta')} "
            f"| {to_parts} |"
        )
    lines += ["", *(_verdict(*each) for each in _by_graph(rows))]
    return "\n".join(lines)


def _by_graph(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    for dataset, model in dict.fromkeys((row["dataset"], row["model"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["model"]) == (dataset, model)]
        yield f"{dataset} {model.upper()}", own


def _verdict(graph: str, rows: list[Row]) -> str:
    """The tensor train that validation prefers, against the full table and part vectors."""
    small = [r for r in rows if r["rank"] and r["reduction"] >= GOAL]
    if not small:
        return f"- {graph}: no tensor train at {GOAL}× or more measured."
    best = max(small, key=lambda row: row["val_acc"])
    verdict = "at or above" if best["delta"] >= 0 else "below"
    text = (
        f"- {graph}: of those at {GOAL}× or more, validation prefers {best['method']}: {verdict} "
        f"the full table ({plus_minus(best, 'delta')} at {best['reduction']:.0f}×)"
    )
    if "delta_parts" in best:
        above = "at or above" if best["delta_parts"] >= 0 else "below"
        text += f", {above} part vectors of equal size ({plus_minus(best, 'delta_parts')})"
    return text + "."
