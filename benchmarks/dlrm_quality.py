"""Tensor trains against full, hashed and quotient-remainder tables of equal size, in DLRM."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.progress import Progress

from benchmarks.click_fits import ClickFits, Fit
from benchmarks.click_orders import Order
from benchmarks.click_plans import PLANS, Plan
from benchmarks.click_tables import NAMES, Kind, Method, num_parameters
from benchmarks.click_training import Setting, step_seconds
from benchmarks.click_verdicts import of_size, verdicts
from benchmarks.intervals import interval_fields, plus_minus
from benchmarks.output import Output, Row
from lit_gnncompress.results import Interval

SIZES_ALONE = "iPinYou"  # too few clicks for more than sizes and time
FULL = Method("full")
RANKS = (4, 8, 16, 32)
MAIN_RANK = 8  # at which the order of each kind is chosen
ORDERS: dict[Kind, tuple[Order, ...]] = {
    "tt": ("none", "frequency", "cooccurrence", "clicked", "spectral"),
    "product": ("frequency", "spectral"),
    "sum": ("frequency", "spectral"),
    "hash": ("none", "frequency"),
}
HOT_RANKS = (8, 16)
TUNING_SEED = 100  # the first of those that settings are chosen by; far from those of tests


@dataclass(frozen=True)
class Choice:
    """What validation chose: its AUC, and of which method and setting."""

    val_auc: float
    method: Method
    setting: Setting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    datasets = (*PLANS, SIZES_ALONE)
    parser.add_argument("--datasets", nargs="+", choices=datasets, default=datasets)
    parser.add_argument(
        "--kinds", nargs="+", choices=[k for k in NAMES if k != "full"], default=list(NAMES)[1:]
    )
    parser.add_argument("--ranks", nargs="+", type=int, choices=RANKS, default=RANKS)
    parser.add_argument(
        "--seeds",
        type=int,
        default=5,
        help="paired seeds: folds of a cross-validation; Criteo10k has twice as many (default: 5)",
    )
    parser.add_argument("--first-seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--epochs", type=int, help="of a fit, at most (default: 30 or 40)")
    parser.add_argument("--picture", type=Path, help="PNG of AUC against reduction")
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")
    parser.add_argument("--processed-dir", help="folder of the arrays made of them")


def run(args: argparse.Namespace, output: Output) -> None:
    """Tunes each method on seeds of its own by validation, and tests it once for each seed."""
    path = None if args.json is None else args.json.with_suffix(".fits.jsonl")
    total = sum(_number_of_fits(PLANS[d], args) for d in args.datasets if d in PLANS)
    with Progress(console=output.console) as progress:
        task = progress.add_task("fits", total=total)
        for dataset in args.datasets:
            fits = ClickFits(dataset, args.root, path, args.epochs, args.processed_dir)

            def fit(
                method: Method, setting: Setting, seed: int, test: bool = False,
                fits: ClickFits = fits,
            ) -> Fit:  # fmt: skip
                progress.update(task, description=f"{fits.dataset}: {method.name}")
                done = fits(method, setting, seed, test)
                progress.advance(task)
                return done

            plan = PLANS.get(dataset)
            for row in _sizes(fits, args) if plan is None else _rows(fit, plan, args):
                row = {"dataset": dataset, **row}
                output.add(row, key=("dataset", "method", "seeds", "first_seed"))
                if row["auc"] is not None:
                    progress.console.print(
                        f"{dataset}, {row['method']}: AUC {row['auc']:.2f} ({row['delta']:+.2f}) "
                        f"at {row['reduction']:.1f}×"
                    )
    if args.picture is not None:
        from benchmarks.dlrm_quality_picture import plot

        plot(output.rows, args.picture)


def _compared(args: argparse.Namespace) -> list[tuple[Kind, list[Order], list[int]]]:
    """Kinds, their orders at the main rank, and the further ranks of the order chosen there."""
    ranks = [rank for rank in args.ranks if rank != MAIN_RANK]
    return [(kind, list(ORDERS[kind]), ranks) for kind in ORDERS if kind in args.kinds]


def _number_of_fits(plan: Plan, args: argparse.Namespace) -> int:
    kinds: list[Kind] = ["full"]
    for kind, orders, ranks in _compared(args):
        kinds += [kind] * (len(orders) + len(ranks))
        if kind == "tt" and "tt+hot" in args.kinds:
            kinds += ["tt+hot"] * len(set(HOT_RANKS) & {*ranks, MAIN_RANK})
    tuning = sum(len(plan.settings[kind]) for kind in kinds) * plan.tuning_seeds
    return tuning + len(kinds) * args.seeds * plan.repeats


def _rows(fit: Callable[..., Fit], plan: Plan, args: argparse.Namespace) -> Iterator[Row]:
    tuning = range(TUNING_SEED, TUNING_SEED + plan.tuning_seeds)
    count = args.seeds * plan.repeats
    seeds = range(args.first_seed, args.first_seed + count)

    def tuned(method: Method) -> Choice:
        choices = []
        for setting in plan.settings[method.kind]:
            auc = Interval.of(fit(method, setting, seed).val_auc for seed in tuning).mean
            choices.append(Choice(auc, method, setting))
        return max(choices, key=lambda choice: choice.val_auc)

    def tested(choice: Choice) -> list[Fit]:
        return [fit(choice.method, choice.setting, seed, test=True) for seed in seeds]

    first = tuned(FULL)
    full = tested(first)

    def row(choice: Choice, chosen: bool) -> Row:
        own = full if choice.method == FULL else tested(choice)
        of = {"seeds": args.seeds, "first_seed": args.first_seed}
        return {"method": choice.method.name, **_row(choice, chosen, full, own), **of}

    yield row(first, True)
    for kind, orders, ranks in _compared(args):
        by_order = [tuned(Method(kind, MAIN_RANK, order)) for order in orders]
        best = max(by_order, key=lambda choice: choice.val_auc)
        for choice in by_order:
            yield row(choice, choice is best)
        for rank in ranks:
            yield row(tuned(replace(best.method, rank=rank)), True)
        if kind == "tt" and "tt+hot" in args.kinds:
            for rank in sorted(set(HOT_RANKS) & {*ranks, MAIN_RANK}):
                yield row(tuned(Method("tt+hot", rank, best.method.order)), True)


def _row(choice: Choice, chosen: bool, full: Sequence[Fit], own: Sequence[Fit]) -> Row:
    aucs, of_full = ([100 * (f.test_auc or 0.0) for f in fits] for fits in (own, full))
    losses, full_losses = ([f.test_loss or 0.0 for f in fits] for fits in (own, full))
    return {
        **_of_method(choice.method),
        "chosen": chosen,
        **_of_sizes(full[0], own[0]),
        **interval_fields("auc", aucs),
        **interval_fields("delta", (b - a for a, b in zip(of_full, aucs, strict=True))),
        **interval_fields("loss", losses),
        **interval_fields("loss_delta", (b - a for a, b in zip(full_losses, losses, strict=True))),
        "aucs": aucs,
        "val_auc": 100 * choice.val_auc,
        "setting": asdict(choice.setting),
        "epochs": Interval.of(f.epochs for f in own).mean,
        "epoch_ratio": min(f.seconds for f in own) / min(f.seconds for f in full),
    }


def _sizes(fits: ClickFits, args: argparse.Namespace) -> Iterator[Row]:
    """Sizes, and the time of a step."""
    batch, _ = fits.rows()
    kinds = [kind for kind in ORDERS if kind in args.kinds]
    methods = [FULL, *(Method(k, rank, "frequency") for k in kinds for rank in args.ranks)]
    models = [fits.model(method, std=0.1, seed=args.first_seed) for method in methods]
    seconds = step_seconds(models, batch, fits.source)
    sizes = [
        Fit(0.0, None, None, 0, num_parameters(model.embeddings), num_parameters(model), 0.0)
        for model in models
    ]
    for method, size, time in zip(methods, sizes, seconds, strict=True):
        yield {
            "method": method.name,
            **_of_method(method),
            **_of_sizes(sizes[0], size),
            "auc": None,
            "step_ratio": time / seconds[0],
            "seeds": args.seeds,
            "first_seed": args.first_seed,
        }


def _of_method(method: Method) -> Row:
    return {"kind": method.kind, "rank": method.rank, "order": method.order}


def _of_sizes(full: Fit, own: Fit) -> Row:
    return {
        "params_full": full.tables,
        "params": own.tables,
        "reduction": full.tables / own.tables,
        "model_reduction": full.parameters / own.parameters,
    }


def table(rows: list[Row]) -> str:
    """A line per method, and for each data set whether the goals are reached."""
    tested = [row for row in rows if row["auc"] is not None]
    lines = [*_of_quality(tested), "", *verdicts(tested), ""] if tested else []
    if sizes := [row for row in rows if row["auc"] is None]:
        lines += of_size(sizes)
    return "\n".join(lines).rstrip()


def _of_quality(rows: list[Row]) -> Iterator[str]:
    yield (
        "| | method | order | size of rank | tables | tables smaller | model smaller | AUC % "
        "| Δ points (95 %) | log loss | Δ (95 %) | decay | epochs |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        deltas = ("", "")
        if row["kind"] != "full":
            deltas = (
                plus_minus(row, "delta"),
                plus_minus(row, "loss_delta", digits=4),
            )
        yield (
            f"| {row['dataset']} | {NAMES[row['kind']]} | {_order(row)} | {row['rank'] or ''} "
            f"| {row['params']:,} | {row['reduction']:.1f}× | {row['model_reduction']:.1f}× "
            f"| {plus_minus(row, 'auc', sign='')} | {deltas[0]} | {row['loss']:.4f} "
            f"| {deltas[1]} | {row['setting']['weight_decay']:g} | {row['epochs']:.0f} |"
        )


def _order(row: Row) -> str:
    """With a star where validation prefers it."""
    if row["kind"] == "full":
        return ""
    return f"{row['order']}{' *' if row['chosen'] and row['rank'] == MAIN_RANK else ''}"
