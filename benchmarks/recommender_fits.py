"""Fits of recommenders on tables of several kinds, kept in a file so that none is done twice."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.finished_fits import FinishedFits
from benchmarks.node_tables import Method, make_order, make_table
from benchmarks.recipes import quiet_trainer
from lit_gnncompress.data import InteractionDataModule
from lit_gnncompress.embedding import NodeOrder
from lit_gnncompress.models import Recommender

_EVERY = 2  # epochs between validations
_VALIDATED = 8192  # users of a validation: all of them take longer than an epoch
_CHUNK = 512


@dataclass(frozen=True)
class Setting:
    """What is tuned."""

    lr: float
    lambda_reg: float
    std: float = 0.1


@dataclass(frozen=True)
class Fit:
    """What came of a fit.

    Attributes:
        val_recall: Validation recall of the best epoch; ``None`` where nothing was validated.
        recall: Test recall; ``None`` where it was not tested.
        ndcg: Likewise.
        epochs: Epochs until the best, or all where nothing was validated.
        parameters: Numbers in the table.
        partitions: Parts of the first level of its order; 0 without.
        seconds: Processor time of the training.
        curve: Epoch, validation recall and processor time of each validation.
    """

    val_recall: float | None
    recall: float | None
    ndcg: float | None
    epochs: int
    parameters: int
    partitions: int
    seconds: float
    curve: list[list[float]]


class RecommenderFits:
    """Fits on one data set.

    Args:
        dataset: Name of the interactions.
        root: Folder of the data.
        epochs: Length of a fit that is validated, at most.
        patience: Epochs without better validation recall after which it ends.
        batch_size: Triples in a step.
        num_layers: Layers of LightGCN.
        path: File of finished fits, a line each; ``None`` keeps them in memory.
        cache_dir: Folder of finished orders.
    """

    def __init__(
        self,
        dataset: str,
        root: str | None,
        epochs: int,
        patience: int,
        batch_size: int,
        num_layers: int = 3,
        path: Path | None = None,
        cache_dir: str | None = None,
    ) -> None:
        self.dataset, self.root = dataset, root
        self.epochs, self.patience = epochs, patience
        self.batch_size, self.num_layers = batch_size, num_layers
        self.path, self.cache_dir = path, cache_dir
        self._finished = FinishedFits(Fit, path)
        self._data: dict[float | None, InteractionDataModule] = {}
        self._orders: dict[Any, NodeOrder | None] = {}

    def validated(self, method: Method, setting: Setting, seed: int) -> Fit:
        """A fit without the part to validate with, measured by it."""
        return self._once(method, setting, seed, None)

    def tested(self, method: Method, setting: Setting, seed: int, epochs: int) -> Fit:
        """A fit with that part, ``epochs`` long, tested once at its end."""
        return self._once(method, setting, seed, epochs)

    def _once(self, method: Method, setting: Setting, seed: int, epochs: int | None) -> Fit:
        key = {
            "dataset": self.dataset,
            **asdict(method),
            **asdict(setting),
            "seed": seed,
            "batch_size": self.batch_size,
            "num_layers": self.num_layers,
            **({"epochs": epochs} if epochs else {"most": self.epochs, "patience": self.patience}),
        }
        return self._finished.once(key, lambda: self._fit(method, setting, seed, epochs))

    def _fit(self, method: Method, setting: Setting, seed: int, epochs: int | None) -> Fit:
        data = self._interactions(0 if epochs else None)
        num_nodes = data.num_users + data.num_items
        order = self._order(method, data, seed)
        L.seed_everything(seed, verbose=False)
        module = Recommender(
            data.num_users,
            data.num_items,
            num_layers=self.num_layers,
            lr=setting.lr,
            lambda_reg=setting.lambda_reg,
            embedding=make_table(method, num_nodes, order, None, setting.std),
        )
        best = _Best(self.patience)
        trainer = quiet_trainer(
            max_epochs=epochs or self.epochs,
            callbacks=[best],
            check_val_every_n_epoch=_EVERY,
            limit_val_batches=-(-_VALIDATED // _CHUNK),
            num_sanity_val_steps=0,
        )
        start = time.process_time()
        trainer.fit(module, data)
        seconds = time.process_time() - start - best.seconds
        tested: Mapping[str, float] = {}
        if epochs:
            (tested,) = trainer.test(module, data, verbose=False)
        return Fit(
            val_recall=None if epochs else best.recall,
            recall=tested.get("test_recall"),
            ndcg=tested.get("test_ndcg"),
            epochs=epochs or best.epoch,
            parameters=sum(each.numel() for each in module.embedding.parameters()),
            partitions=order.num_parts(1) if order is not None else 0,
            seconds=seconds,
            curve=best.curve,
        )

    def _interactions(self, val_share: float | None) -> InteractionDataModule:
        if val_share not in self._data:
            self._data[val_share] = InteractionDataModule(
                self.dataset,
                root=self.root,
                batch_size=self.batch_size,
                eval_batch_size=_CHUNK,
                val_share=val_share,
            )
        return self._data[val_share]

    def _order(self, method: Method, data: InteractionDataModule, seed: int) -> NodeOrder | None:
        """The order of what trains; ranks share it."""
        num_nodes = data.num_users + data.num_items
        if method.kind == "full":
            return None
        key = (data.val_share, method.order, method.rows(num_nodes), seed)
        if key not in self._orders:
            if len(self._orders) > 8:
                self._orders.pop(next(iter(self._orders)))
            edges = data.data.edge_index
            self._orders[key] = make_order(method, edges, num_nodes, seed, self.cache_dir)
        return self._orders[key]


class _Best(Callback):
    """Keeps the curve of the validations and its best, and ends a fit that gets no better."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.curve: list[list[float]] = []
        self.recall, self.epoch, self.seconds = -1.0, 0, 0.0
        self._began = self._validation = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.process_time()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation = time.process_time()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now, epoch = time.process_time(), trainer.current_epoch + 1
        self.seconds += now - self._validation
        recall = float(trainer.callback_metrics["val_recall"])
        self.curve.append([epoch, recall, round(now - self._began - self.seconds, 1)])
        if recall > self.recall:
            self.recall, self.epoch = recall, epoch
        elif epoch - self.epoch >= self.patience:
            trainer.should_stop = True
