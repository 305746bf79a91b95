"""How ``dlrm_quality`` trains DLRM: steps, evaluation, and the time of a step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.functional.classification import binary_auroc

from lit_gnncompress.data import CriteoDataModule, LibFMDataModule, TableBatch
from lit_gnncompress.data.table_data_module import TableDataModule
from lit_gnncompress.models import DLRM

_AT_ONCE = 8192  # rows of an evaluation
_STEPS = 30  # of a measurement of time


@dataclass(frozen=True)
class Source:
    """A data set, and what suits it.

    Attributes:
        module: Reads it.
        batch_size: Rows in a step.
        lr: Of the MLPs; that of the tables is tuned.
        epochs: Length of a fit, at most.
        patience: Epochs without better validation AUC after which it ends.
    """

    module: type[TableDataModule]
    batch_size: int
    lr: float
    epochs: int
    patience: int


SOURCES = {
    "Criteo10k": Source(CriteoDataModule, 512, 0.001, epochs=30, patience=4),
    "Frappe": Source(LibFMDataModule, 1024, 0.003, epochs=40, patience=5),
    "iPinYou": Source(LibFMDataModule, 1024, 0.003, epochs=30, patience=5),
    "clicks": Source(CriteoDataModule, 512, 0.003, epochs=30, patience=4),
}


@dataclass(frozen=True)
class Setting:
    """What is tuned, of the tables.

    Attributes:
        lr: Learning rate.
        weight_decay: Adam's.
        std: Standard deviation of the vectors at the start.
    """

    lr: float
    weight_decay: float
    std: float


def step_seconds(models: Sequence[DLRM], batch: TableBatch, source: Source) -> list[float]:
    """Processor time of a training step of each model: the least of many, taken in turn.

    Args:
        models: The models; they are trained on.
        batch: Rows; the first ``batch_size`` are taken.
        source: What suits the data set.
    """
    rows = TableBatch(*(part[: source.batch_size] for part in batch))
    setting = Setting(lr=1e-3, weight_decay=0.0, std=1.0)
    optimizers = [make_optimizer(model, setting, source.lr) for model in models]
    least = [float("inf")] * len(models)
    for _ in range(_STEPS):
        for k, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            start = time.process_time()
            train_epoch(model, optimizer, rows, source.batch_size)
            least[k] = min(least[k], time.process_time() - start)
    return least


def make_optimizer(model: DLRM, setting: Setting, lr: float) -> torch.optim.Optimizer:
    """Adam, with a setting for the tables and the learning rate ``lr`` for the MLPs."""
    mlps = [each for name, each in model.named_parameters() if not name.startswith("embeddings.")]
    tables: dict[str, Any] = {
        "params": list(model.embeddings.parameters()),
        "lr": setting.lr,
        "weight_decay": setting.weight_decay,
    }
    return torch.optim.Adam([tables, {"params": mlps}], lr=lr, fused=True)


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, rows: TableBatch, batch_size: int
) -> None:
    """Trains on all rows once, in an order drawn from torch's generator."""
    model.train()
    order = torch.randperm(len(rows.label))
    mixed = TableBatch(*(part[order] for part in rows))
    for parts in zip(*(part.split(batch_size) for part in mixed), strict=True):
        dense, sparse, label = parts
        loss = F.binary_cross_entropy_with_logits(model(dense, sparse), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def evaluate(model: nn.Module, rows: TableBatch) -> tuple[float, float]:
    """AUC and log loss."""
    model.eval()
    with torch.no_grad():
        pieces = zip(rows.dense.split(_AT_ONCE), rows.sparse.split(_AT_ONCE), strict=True)
        logits = torch.cat([model(*piece) for piece in pieces])
    loss = F.binary_cross_entropy_with_logits(logits, rows.label)
    return float(binary_auroc(logits, rows.label.int())), float(loss)
