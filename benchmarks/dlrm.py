"""Training steps of a DLRM: its largest tables as tensor trains, against sparse nn.Embedding."""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from rich.progress import Progress

from benchmarks.dlrm_models import PRESETS, Model, fraction_within, num_parameters
from benchmarks.output import Output, Row
from benchmarks.timing import threads

OPTIMIZERS = ("adagrad", "sgd")
PAPER = {"kaggle": (46.5, 1.125), "terabyte": (37.4, 1.118)}  # TT-Rec: reduction, time; 7 tables
_WARM_UP = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument(
        "--tables-tt", nargs="+", type=int, default=[0, 3, 5, 7], help="of the largest (0: noise)"
    )
    parser.add_argument("--rank", nargs="+", type=int, default=[16, 32])
    parser.add_argument("--optimizer", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--batch", type=int, default=2048, help="rows of a step (default: 2048)")
    parser.add_argument(
        "--memory",
        type=float,
        default=10.0,
        help="GB that dense tables and their optimizer may take: where they do not fit, a fraction "
        "of their rows is measured (default: 10)",
    )
    parser.add_argument(
        "--fraction", type=float, help="that fraction; what fits into --memory by default"
    )
    parser.add_argument("--threads", type=int, default=1, help="(default: 1)")
    parser.add_argument("--pairs", type=int, default=40, help="of steps, in turns (default: 40)")


def run(args: argparse.Namespace, output: Output) -> None:
    """Measures all models; every one of them against the dense one, step by step in turns."""
    if args.fraction is not None and not 0 < args.fraction <= 1:
        raise ValueError(f"--fraction {args.fraction} must lie in (0, 1].")
    for tables in args.tables_tt:
        if not 0 <= tables <= len(PRESETS["kaggle"].num_embeddings):
            raise ValueError(f"--tables-tt {tables}: there are 26 tables.")
    kinds = [(tables, rank) for tables in args.tables_tt for rank in (args.rank if tables else [0])]
    with Progress(console=output.console) as progress, threads(args.threads):
        total = len(args.preset) * len(args.optimizer) * len(kinds)
        task = progress.add_task("models", total=total)
        for preset in args.preset:
            for optimizer in args.optimizer:
                fraction = args.fraction or fraction_within(preset, optimizer, args.memory)
                dense = Model(preset, optimizer, fraction, 0, 0, args.batch)
                models = [replace(dense, tables_tt=t, rank=rank) for t, rank in kinds]
                # The processes of the peaks come first: then the dense tables are there once.
                peaks = {model: model.peak_bytes() for model in dict.fromkeys([dense, *models])}
                dense_step = dense.step(dense.draw())
                for model in models:
                    row = asdict(model) | {"threads": args.threads} | _sizes(model, dense, peaks)
                    step = dense_step if model == dense else model.step(model.draw())
                    row |= _times(step, dense_step, args)
                    output.add(row, key=(*asdict(model), "threads"))
                    progress.advance(task)
                del dense_step
                gc.collect()


def _sizes(model: Model, dense: Model, peaks: dict[Model, int]) -> Row:
    return {
        "parameters": num_parameters(model),
        "model_reduction": num_parameters(dense) / num_parameters(model),
        "peak_bytes": peaks[model],
        "peak_bytes_dense": peaks[dense],
        "peak_memory_ratio": peaks[model] / peaks[dense],
    }


def _times(
    step: Callable[[], None], dense_step: Callable[[], None], args: argparse.Namespace
) -> Row:
    """Of steps that take turns: the ratio of each pair, their median and the middle half."""
    for _ in range(_WARM_UP):
        step()
        dense_step()
    pairs = []
    for turn in range(args.pairs):
        # Which of the two comes first must not matter.
        ways = (step, dense_step) if turn % 2 else (dense_step, step)
        seconds = {way: _seconds(way) for way in ways}
        if step is dense_step:
            pairs.append((seconds[step], _seconds(step)))
        else:
            pairs.append((seconds[step], seconds[dense_step]))
    ratios = sorted(own / other for own, other in pairs)
    return {
        "pairs": len(pairs),
        "step_ratio": statistics.median(ratios),
        "step_ratio_spread": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "step_ms": 1e3 * statistics.median(own for own, _ in pairs),
        "step_ms_dense": 1e3 * statistics.median(other for _, other in pairs),
    }


def _seconds(way: Callable[[], None]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def table(rows: list[Row]) -> str:
    """A line for each model."""
    papers = "; ".join(
        f"{name} {reduction}× smaller, a step {ratio:.3f}× as long"
        for name, (reduction, ratio) in PAPER.items()
    )
    lines = [
        "Step of a DLRM whose largest tables are tensor trains / that with dense tables and sparse "
        "gradients, the same optimizer, in turns; the middle half of the pairs in brackets. Peak: "
        "of a process that trains, tables, optimizer and all. `fraction`: rows of dense tables as "
        "measured, reductions count all. TT-Rec (on GPUs, 7 tables): " + papers + ".",
        "",
        "| preset | optimizer | tables | rank | batch | fraction | parameters | reduction | step "
        "| ms | peak, MB | of dense |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["step_ratio_spread"]
        lines.append(
            f"| {row['preset']} | {row['optimizer']} | {row['tables_tt']} | {row['rank'] or '–'} "
            f"| {row['batch']} | {row['fraction']:g} | {row['parameters']:,} "
            f"| {row['model_reduction']:.1f}× | **{row['step_ratio']:.3f}** ({low:.3f}–{high:.3f}) "
            f"| {row['step_ms']:.1f} / {row['step_ms_dense']:.1f} "
            f"| {row['peak_bytes'] / 1e6:.0f} / {row['peak_bytes_dense'] / 1e6:.0f} "
            f"| {row['peak_memory_ratio']:.3f} |"
        )
    return "\n".join(lines)
