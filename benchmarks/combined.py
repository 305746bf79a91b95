"""Both halves in one Trainer: a table as quantized cores, and hidden features in few bits."""

from __future__ import annotations

import argparse
import copy
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.progress import Progress
from torch import Tensor

from benchmarks.intervals import interval_fields, plus_minus
from benchmarks.node_tables import COLUMNS, DIM, GROUPS, MAIN
from benchmarks.output import Output, Row
from benchmarks.recipes import quiet_trainer
from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import QuantizationFinetuning, Quantize, Tensorize
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.embedding import structural_vectors
from lit_gnncompress.models import NodeClassifier
from lit_gnncompress.results import Interval

RESULTS = Path(__file__).parent / "results"
DATASETS = ("PubMed", "Computers", "ProNE-DBLP")
FIRST = "full table"
_SETTING = {"lr": 0.01, "weight_decay": 5e-4, "std": 1.0}
"""Where ``tt_gnn`` has not chosen: what it chose most often."""

_NUMBERING = 10_000  # beyond the seeds of splits, which would draw the same
_EPOCHS, _FINETUNING, _PATIENCE = 120, 20, 20

Stage = tuple[str, float, int]
"""Its name, test accuracy, and bytes of table and features."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--bits", type=int, default=4, help="of features (default: 4)")
    parser.add_argument(
        "--core-bits", nargs="+", type=int, default=[8, 4], help="of cores (default: 8 4)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="paired seeds (default: 5)")
    parser.add_argument("--first-seed", type=int, default=1, help="(default: 1)")
    parser.add_argument("--root", help="folder of the data (default: $GNNCOMPRESS_DATA)")
    parser.add_argument("--cache-dir", help="folder of finished orders")


def run(args: argparse.Namespace, output: Output) -> None:
    """Fits the full table and the tensor train for each seed, and tests every stage once."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    with Progress(console=output.console) as progress:
        task = progress.add_task("fits", total=2 * len(args.datasets) * args.seeds)
        for dataset in args.datasets:
            accuracy: dict[str, list[float]] = {}
            kept: dict[str, int] = {}
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                for stages in (_full_table(dataset, seed, args), _cores(dataset, seed, args)):
                    for stage, tested, num_bytes in stages:
                        accuracy.setdefault(stage, []).append(100 * tested)
                        kept[stage] = num_bytes
                    progress.advance(task)
            for stage, own in accuracy.items():
                pairs = zip(accuracy[FIRST], own, strict=True)
                row = {
                    "dataset": dataset,
                    "stage": stage,
                    "seeds": args.seeds,
                    "first_seed": args.first_seed,
                    "acc": Interval.of(own).mean,
                    **interval_fields("delta", (b - a for a, b in pairs)),
                    "bytes": kept[stage],
                    "saving": kept[FIRST] / kept[stage],
                }
                output.add(row, key=("dataset", "stage"))


def _full_table(dataset: str, seed: int, args: argparse.Namespace) -> Iterator[Stage]:
    """The full table in fp32, with the same start as the cores."""
    fit = _Fit(dataset, seed, args, "full")
    with torch.no_grad():
        graph, table = fit.data.data, fit.table
        vectors = structural_vectors(graph.edge_index, graph.num_nodes, DIM, seed=seed)
        table.weight.copy_(vectors * table.weight.square().mean().sqrt())
    fit.run()
    numbers = sum(parameter.numel() for parameter in table.parameters())
    yield FIRST, fit.test(quantized=False), 4 * numbers + fit.quantize.ledger.bytes_fp32


def _cores(dataset: str, seed: int, args: argparse.Namespace) -> Iterator[Stage]:
    """Cores; with features in bits; and cores in bits, too."""
    tensorize = Tensorize(
        ["embedding"],
        rank=MAIN.rank,
        columns=COLUMNS,
        start="structure",
        seed=seed,
        cache_dir=args.cache_dir,
        verbose=False,
    )
    fit = _Fit(dataset, seed, args, "tt", tensorize)
    fit.run()
    ledger, table = fit.quantize.ledger, fit.table
    yield "tensor train", fit.test(quantized=False), table.num_bytes + ledger.bytes_fp32
    name = f"tensor train, features in {args.bits} bits"
    yield name, fit.test(quantized=True), table.num_bytes + ledger.bytes_real
    for bits in args.core_bits:
        fit.module.embedding = table.quantized(bits)
        kept = fit.table.num_bytes + ledger.bytes_real
        yield f"{name}, cores in {bits}", fit.test(quantized=True, load=False), kept


class _Fit:
    """A fit in full precision, then quantized, on a graph without features."""

    def __init__(
        self, dataset: str, seed: int, args: argparse.Namespace, kind: str, *callbacks: L.Callback
    ) -> None:
        self.data = _shuffled(dataset, seed, args.root)
        L.seed_everything(seed, verbose=False)
        setting = _setting(dataset, kind)
        self.module = NodeClassifier(
            "sage",
            in_channels=0,
            num_nodes=self.data.data.num_nodes,
            embedding_dim=DIM,
            num_classes=self.data.num_classes,
            hidden_channels=64,
            input_dropout=0.0,
            lr=setting["lr"],
            weight_decay=setting["weight_decay"],
        )
        with torch.no_grad():
            self.table.weight.mul_(setting["std"])
        self.quantize = Quantize(BitPlan(args.bits), verbose=False)
        self._finetuning = QuantizationFinetuning(
            start="best", patience=_PATIENCE, epochs=_FINETUNING, monitor="val_acc", mode="max"
        )
        self._trainer = quiet_trainer(
            max_epochs=_EPOCHS, callbacks=[*callbacks, self.quantize, self._finetuning]
        )
        self._tuned: dict[str, Tensor] = {}

    @property
    def table(self) -> Any:
        """The table, or what stands in its place."""
        return self.module.embedding

    def run(self) -> None:
        """Fits."""
        self._trainer.fit(self.module, datamodule=self.data)
        self._tuned = copy.deepcopy(self.module.state_dict())

    def test(self, quantized: bool, load: bool = True) -> float:
        """Test accuracy of the best weights of a phase, or of what the module holds."""
        if load:
            before = self._finetuning.full_precision_weights
            assert before is not None
            self.module.load_state_dict(self._tuned if quantized else before)
        self.quantize.enabled = quantized
        logged = self._trainer.test(self.module, datamodule=self.data, verbose=False)
        return float(logged[0]["test_acc"])


def _shuffled(dataset: str, seed: int, root: str | None) -> GraphDataModule:
    """A graph whose nodes are numbered at random: the published numbers can tell classes."""
    data = GraphDataModule(dataset, root=root, features=False, split="shares", split_seed=seed)
    graph = data.data
    generator = torch.Generator().manual_seed(_NUMBERING + seed)
    number = torch.randperm(graph.num_nodes, generator=generator)
    graph.edge_index = number[graph.edge_index]
    for name in ("y", "deg", "train_mask", "val_mask", "test_mask"):
        graph[name] = torch.empty_like(graph[name]).index_copy_(0, number, graph[name])
    return data


def _setting(dataset: str, kind: str) -> dict[str, float]:
    """Training settings that ``tt_gnn`` chose by validation, for a start by structure."""
    method = next(m for m in GROUPS["core"] if m.kind == kind and m.start == "structure")
    if not (RESULTS / "tt_gnn.json").exists():
        return _SETTING
    rows = json.loads((RESULTS / "tt_gnn.json").read_text(encoding="utf-8"))["rows"]
    for row in rows:
        if (row["dataset"], row["model"], row["method"]) == (dataset, "sage", method.name):
            return row["setting"]
    return _SETTING


def table(rows: list[Row]) -> str:
    """A line for each stage."""
    lines = [
        "Two layers of GraphSAGE on nodes without features, every table with a start by structure; "
        "the saving is of the table and the features that enter layers together, the difference "
        "to the full table in fp32.",
        "",
        "| | stage | seeds | accuracy % | Δ points (95 %) | kB | saving |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        delta = plus_minus(row, "delta") if row["stage"] != FIRST else ""
        lines.append(
            f"| {row['dataset']} | {row['stage']} "
            f"| {row['first_seed']}–{row['first_seed'] + row['seeds'] - 1} | {row['acc']:.1f} "
            f"| {delta} | {row['bytes'] / 1e3:,.0f} | {row['saving']:.1f}× |"
        )
    return "\n".join(lines)
