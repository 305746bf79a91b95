"""Fits of DLRM on tables of several kinds, kept in a file so that none is done twice."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.click_orders import make_order
from benchmarks.click_tables import DIM, Method, make_table, num_parameters, train_shape
from benchmarks.click_training import SOURCES, Setting, evaluate, make_optimizer, train_epoch
from benchmarks.finished_fits import FinishedFits
from lit_gnncompress.data import TableBatch
from lit_gnncompress.data.table_split import fold_rows
from lit_gnncompress.embedding import NodeOrder
from lit_gnncompress.models import DLRM

FOLDS = 5
_MLP = (32,)  # widths of both MLPs


@dataclass(frozen=True)
class Fit:
    """What came of a fit.

    Attributes:
        val_auc: Validation AUC of the best epoch, 0 to 1.
        test_auc: Test AUC of its weights; ``None`` where they were not tested.
        test_loss: Their log loss, likewise.
        epochs: Epochs until the best.
        tables: Numbers in all tables.
        parameters: Numbers in the model.
        seconds: Processor time of an epoch of training.
    """

    val_auc: float
    test_auc: float | None
    test_loss: float | None
    epochs: int
    tables: int
    parameters: int
    seconds: float


class ClickFits:
    """Fits on one data set.

    Categories are numbered anew at random: those of the data modules are numbered by frequency,
    in all rows.

    Args:
        dataset: One of ``SOURCES``.
        root: Folder of the data.
        path: File of finished fits, a line each; ``None`` keeps them in memory.
        epochs: Length of a fit, at most; that which suits the data set if ``None``.
        processed_dir: Folder of the arrays.
    """

    def __init__(
        self,
        dataset: str,
        root: str | None,
        path: Path | None,
        epochs: int | None = None,
        processed_dir: str | None = None,
    ) -> None:
        self.dataset, self._root, self._processed_dir = dataset, root, processed_dir
        source = SOURCES[dataset]
        self.source = source if epochs is None else replace(source, epochs=epochs)
        self._finished = FinishedFits(Fit, path)
        self._read: tuple[TableBatch, list[int]] | None = None
        self._orders: dict[Any, NodeOrder] = {}

    def __call__(self, method: Method, setting: Setting, seed: int, test: bool = False) -> Fit:
        """The fit of a seed, which draws orders, weights and batches.

        Each five seeds in a row test the five folds of a cross-validation.
        """
        key = {
            "dataset": self.dataset,
            **asdict(method),
            **asdict(setting),
            "seed": seed,
            "test": test,
            **{name: value for name, value in asdict(self.source).items() if name != "module"},
        }
        key["lr_mlp"], key["lr"] = self.source.lr, setting.lr
        return self._finished.once(key, lambda: self._fit(method, setting, seed, test))

    def rows(self) -> tuple[TableBatch, list[int]]:
        """All labelled rows, and the number of categories of each field."""
        if self._read is None:
            module = self.source.module(
                self.dataset, root=self._root, processed_dir=self._processed_dir
            )
            batch = module.rows.batch(slice(0, module.rows.num_train + module.rows.num_test))
            random = np.random.default_rng(0)
            for field, number in enumerate(module.num_embeddings):
                anew = torch.from_numpy(random.permutation(number))
                batch.sparse[:, field] = anew[batch.sparse[:, field]]
            self._read = batch, module.num_embeddings
        return self._read

    def model(self, method: Method, std: float, seed: int) -> DLRM:
        """A model before it is trained."""
        batch, sizes = self.rows()
        train, *_ = self._parts(seed)
        torch.manual_seed(seed)
        model = DLRM(sizes, batch.dense.size(1), embedding_dim=DIM, bottom_mlp=_MLP, top_mlp=_MLP)
        for field, number in enumerate(sizes):
            order, counts = None, train.sparse[:, field].bincount(minlength=number)
            if method.kind != "full" and train_shape(number, method.rank) is not None:
                order = self._order(method, train, field, seed)
            model.embeddings[field] = make_table(method, number, order, counts, std)
        return model

    def _parts(self, seed: int) -> list[TableBatch]:
        """Rows to train on, to validate with and to test with."""
        batch, _ = self.rows()
        split = fold_rows(len(batch.label), FOLDS, seed % FOLDS, seed // FOLDS)
        return [_part(batch, rows) for rows in split]

    def _order(self, method: Method, train: TableBatch, field: int, seed: int) -> NodeOrder:
        _, sizes = self.rows()
        shape = train_shape(sizes[field], method.rank)
        assert shape is not None
        key = (method.order, shape.rows, field, seed)
        if key not in self._orders:
            arguments = (method.order, train, field, sizes, shape.rows, seed)
            self._orders[key] = make_order(*arguments)
        return self._orders[key]

    def _fit(self, method: Method, setting: Setting, seed: int, test: bool) -> Fit:
        train, valid, held = self._parts(seed)
        model = self.model(method, setting.std, seed)
        optimizer = make_optimizer(model, setting, self.source.lr)
        best, best_epoch, seconds, weights = -1.0, 0, 0.0, None
        for epoch in range(1, self.source.epochs + 1):
            start = time.process_time()
            train_epoch(model, optimizer, train, self.source.batch_size)
            seconds += time.process_time() - start
            auc, _ = evaluate(model, valid)
            if auc > best:
                best, best_epoch = auc, epoch
                weights = copy.deepcopy(model.state_dict()) if test else None
            elif epoch - best_epoch >= self.source.patience:
                break
        tested: tuple[float | None, float | None] = (None, None)
        if weights is not None:
            model.load_state_dict(weights)
            tested = evaluate(model, held)
        tables = num_parameters(model.embeddings)
        return Fit(best, *tested, best_epoch, tables, num_parameters(model), seconds / epoch)


def _part(batch: TableBatch, rows: slice | np.ndarray) -> TableBatch:
    chosen: slice | Tensor = rows if isinstance(rows, slice) else torch.from_numpy(rows)
    return TableBatch(*(part[chosen] for part in batch))
