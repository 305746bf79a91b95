"""What quantization costs in training: an epoch with the callback against one without."""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Sequence
from typing import Any

import lightning as L
from rich.progress import Progress

from benchmarks.output import Output, Row
from benchmarks.recipes import quiet_trainer
from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import Quantize
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.models import NodeClassifier

_PLANS = {
    "features 4": BitPlan(features=4),
    "features 8/4/2 by degree": BitPlan(features=[8, 4, 2], degree_splits=[4, 16]),
    "features 4, attention 8": BitPlan(features=4, attention=8),
}
_MODELS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "gcn": ({"hidden_channels": 32}, ("features 4", "features 8/4/2 by degree")),
    "gat": ({"hidden_channels": 64}, ("features 4, attention 8",)),
}


class _EpochTimes(L.Callback):
    """Seconds of each training epoch, with its validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--dataset", default="PubMed")
    parser.add_argument("--epochs", type=int, default=30, help="per fit (default: 30)")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of fits (default: 5)")
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")


def run(args: argparse.Namespace, output: Output) -> None:
    """Times fits with and without the callback in turns, with and without input dropout."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    data = GraphDataModule(args.dataset, root=args.root)
    jobs = [
        (model, arguments, plan, dropout)
        for model, (arguments, plans) in _MODELS.items()
        for plan in plans
        for dropout in (0.0, 0.5)
    ]
    with Progress(console=output.console) as progress:
        task = progress.add_task("pairs of fits", total=len(jobs) * args.repeats)
        for model, arguments, plan, dropout in jobs:
            ratios, fp32 = [], []
            for repeat in range(args.repeats):
                seconds = []
                for callbacks in ([], [Quantize(_PLANS[plan], verbose=False)]):
                    L.seed_everything(repeat, verbose=False)
                    module = NodeClassifier(
                        model,  # type: ignore[arg-type]
                        in_channels=data.num_features,
                        num_classes=data.num_classes,
                        input_dropout=dropout,
                        **arguments,
                    )
                    seconds.append(_epoch_seconds(module, data, args.epochs, callbacks))
                fp32.append(seconds[0])
                ratios.append(seconds[1] / seconds[0])
                progress.advance(task)
            row = {
                "dataset": args.dataset,
                "model": model,
                "plan": plan,
                "input_dropout": dropout,
                "fp32_epoch_ms": 1e3 * statistics.median(fp32),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "pairs": args.repeats,
            }
            output.add(row, key=("dataset", "model", "plan", "input_dropout"))


def _epoch_seconds(
    module: L.LightningModule, data: GraphDataModule, epochs: int, callbacks: Sequence[L.Callback]
) -> float:
    times = _EpochTimes()
    trainer = quiet_trainer(max_epochs=epochs + 3, callbacks=[*callbacks, times])
    trainer.fit(module, datamodule=data)
    return statistics.median(times.seconds[3:])


def table(rows: list[Row]) -> str:
    """The rows, a line each."""
    lines = [
        "| | model | plan | input dropout | fp32 epoch, ms | quantized / fp32 (range) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['dataset']} | {row['model'].upper()} | {row['plan']} "
            f"| {row['input_dropout']:g} | {row['fp32_epoch_ms']:.1f} | **{row['ratio']:.2f}** "
            f"({row['ratio_min']:.2f}–{row['ratio_max']:.2f}, {row['pairs']} pairs) |"
        )
    return "\n".join(lines)
