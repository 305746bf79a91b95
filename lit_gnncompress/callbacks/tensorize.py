"""Tensorize: embedding tables of any LightningModule, replaced by tensor trains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any
from weakref import ref

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch_geometric.data import Data

from lit_gnncompress.callbacks.awaited_tables import AwaitedTables, check_start
from lit_gnncompress.callbacks.chosen_tables import ChosenTables
from lit_gnncompress.callbacks.full_tables import check_resumed, convert_full_tables
from lit_gnncompress.callbacks.replacement import Replacement
from lit_gnncompress.callbacks.row_orders import Order, OrderSources, RowOrders
from lit_gnncompress.callbacks.table_cores import Rows, Start, TableCores
from lit_gnncompress.callbacks.tensorized import (
    DenseTable,
    MadeTables,
    TensorizedTable,
    note_on_order,
    print_tables,
    warn_of_growth,
)
from lit_gnncompress.callbacks.trained_tables import (
    GradientWatch,
    check_copies,
    check_optimizers,
    check_places,
)
from lit_gnncompress.callbacks.trainers import callbacks_of, check_strategy, spawns_processes
from lit_gnncompress.embedding import NodeOrder
from lit_gnncompress.embedding.cores import Init


class Tensorize(Callback):
    """Replaces embedding tables of a LightningModule by tensor trains (Nimble GNN, TT-Rec).

    The module is not touched by hand: each ``nn.Embedding`` that is named, or is one of the
    largest, becomes a :class:`~lit_gnncompress.embedding.TTEmbedding`, each ``nn.EmbeddingBag`` a
    :class:`~lit_gnncompress.embedding.TTEmbeddingBag`, in ``setup``, before optimizers are made and
    before a checkpoint is read. What shrank is printed. Gradients of cores are dense, also where
    those of the table were ``sparse``.

    Rows that have much in common share leading digits, and so cores: rows are ordered, by rank
    zero alone, by the graph of the datamodule (its attribute ``data``, a
    :class:`~torch_geometric.data.Data`) or by ``edge_index``; tables of categories by the rows that
    train, where the datamodule is one of :class:`~lit_gnncompress.data.CriteoDataModule`'s kind.

    A table on the device ``"meta"`` never takes memory: its cores are made on the CPU, as large as
    its attribute ``init_std`` says (1 without it, as ``nn.Embedding``).

    Checkpoints of the fit load with this callback in the Trainer; in test, validation and
    prediction tables are made as the checkpoint has them, without the graph. One of the full table
    can be tested or predicted with: its rows become cores as it is read, with a warning where they
    lose much. To train on from it, load its weights into the module first, and take
    ``start="table"``. Without a checkpoint these stages take a module that is tensorized already,
    or ``start="table"``.

    Works with :class:`Quantize` and :class:`QuantizationFinetuning`, which quantize features and
    leave tables alone. Where tables differ in rank or graph, give a callback for each.

    Args:
        modules: Names of the modules with tables, their tails (``embedding`` for
            ``model.embedding``), or globs.
        rank: Rank between all cores, or each inner rank; 8 if neither it nor a size is given.
        order: Order of the rows: ``"metis"`` (recursive, part borders are digit borders),
            ``"flat_metis"``, ``"community"``, ``"degree"``; by the rows that train, for a table
            whose name ends with the number of its field (``embeddings.3``), ``"cooccurrence"`` in
            those whose label is 1, if any is (see
            :func:`~lit_gnncompress.embedding.cooccurrence.cooccurrence_order`), or
            ``"frequency"`` in all; ``"random"``, ``"none"``; or a
            :class:`~lit_gnncompress.embedding.NodeOrder` made before. ``None`` is ``"metis"`` for
            tables that have a row for each node of the graph, and ``"none"`` for others.
        rows: Factors of the rows; by default those of
            :func:`~lit_gnncompress.embedding.graph_rows` for an order by graph, else balanced.
            ``"smallest"`` takes, for each table, those of the fewest parameters at its rank
            (:func:`~lit_gnncompress.embedding.smallest_rows`), with which steps are quickest.
        columns: Factors of the columns; balanced by default.
        compression: Numbers of the table for each number of the cores, at least.
        max_bytes: Bytes of the cores, at most.
        parts: Whether each part of the order has a vector of its own, which is added; or the
            levels whose parts have.
        init: How cores start, see :func:`~lit_gnncompress.embedding.initial_cores`.
        learn_scale: Whether the cores share a factor that is trained.
        start: ``"fresh"``: cores of a random table whose entries are as large as those of the
            table replaced, in root mean square; ``"structure"``: the cores nearest to
            :func:`~lit_gnncompress.embedding.structural_vectors` of the graph, in that size; or
            ``"table"``: the cores nearest to the table (TT-SVD). Whether it was trained cannot be
            seen.
        edge_index: Edges between the rows of the tables, int64 of shape ``(2, E)``, where the
            datamodule has no graph, or another.
        seed: Seed of the order, and of a start by structure.
        cache_dir: Folder where orders are kept, see
            :func:`~lit_gnncompress.embedding.hierarchical_order`.
        verbose: Whether what shrank is printed.
        tables: ``"largest:5"``, in place of ``modules``, for the five tables with most numbers.
            Those of which cores would be more than half as large stay as they are.

    Attributes:
        left_dense: Tables that stayed as they are, and what their cores would cost.

    Raises:
        ValueError: A name without a table, a table that cannot be replaced, arguments that do not
            fit it, nothing to order its rows by, or an order made for another graph.
        MisconfigurationException: Two callbacks for one table, a strategy that shards modules or
            that starts its processes by spawn or fork, an optimizer for sparse gradients alone,
            cores in no optimizer, tables made anew after they were replaced, a callback before this
            one that has copied the module, a fit that resumes from a checkpoint of the full table,
            or another stage with nothing to test but random cores.

    Example:
        >>> from lit_gnncompress.callbacks import Tensorize
        >>> tensorize = Tensorize(["embedding"], rank=8)
        >>> # Trainer(callbacks=[tensorize]).fit(module, data); then
        >>> tensorize.tables
        []
    """

    def __init__(
        self,
        modules: Sequence[str] | None = None,
        rank: int | list[int] | None = None,
        order: Order | NodeOrder | None = None,
        rows: Rows | None = None,
        columns: Sequence[int] | None = None,
        compression: float | None = None,
        max_bytes: int | None = None,
        parts: bool | list[int] = False,
        init: Init = "semi_orthogonal",
        learn_scale: bool = False,
        start: Start = "fresh",
        edge_index: Tensor | None = None,
        seed: int = 0,
        cache_dir: str | Path | None = None,
        verbose: bool = True,
        tables: str | None = None,
    ) -> None:
        super().__init__()
        chosen = ChosenTables.of(modules, tables)
        self.modules, self.largest, self._chosen = chosen.modules, chosen.largest, str(chosen)
        if parts and order == "none":
            raise ValueError(f"parts={parts} needs an order, which tells the parts: order='none'.")
        if isinstance(order, NodeOrder) and rows is None:
            rows = order.rows
        self.verbose = verbose
        self._made = MadeTables()
        self.left_dense: list[DenseTable] = []
        self._replacement = Replacement(
            chosen,
            RowOrders(order, edge_index, seed, cache_dir, progress=verbose),
            TableCores(
                rank, rows, columns, compression, max_bytes, parts, init, learn_scale, start
            ),
        )
        self._replaced: list[ref[Tensor]] = []  # which may be larger than all else
        self._placed: list[str] = []  # since the last fit
        self._awaited: AwaitedTables | None = None
        self._watch: GradientWatch | None = None

    @property
    def tables(self) -> list[TensorizedTable]:
        """What became of each table."""
        return self._made.tables

    @property
    def state_key(self) -> str:
        """Tells callbacks for different tables apart."""
        if self.modules is None:
            return self._generate_state_key(largest=self.largest)
        return self._generate_state_key(modules=self.modules)

    def __getstate__(self) -> dict[str, Any]:
        """All but references to the module, which spawned processes could not be given."""
        return {**self.__dict__, "_replaced": [], "_awaited": None, "_watch": None}

    # --- hooks ------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replaces the tables, once per module; where none is trained, when a state is read."""
        check_strategy(trainer, self)
        if is_overridden("configure_model", pl_module):
            pl_module.configure_model()  # Lightning calls it after setup; it may be called twice
        sources = _sources(trainer)
        waiting, left, _ = self._replacement.waiting(pl_module, sources)
        if stage == TrainerFn.FITTING:
            if waiting:
                self._check_launcher(trainer)
                before = takewhile(lambda each: each is not self, callbacks_of(trainer))
                check_copies(before, self._chosen)
            self._placed = [table.name for table in self._replace_and_print(trainer, pl_module)]
        elif waiting:
            self._stop_waiting()
            self.left_dense = left
            make = partial(self._replace, pl_module, sources, trainer, values_follow=True)
            names = [each.names[0] for each in waiting]
            self._awaited = AwaitedTables(pl_module, names, make, self._made)

    def _check_launcher(self, trainer: Trainer) -> None:
        if spawns_processes(trainer):
            raise MisconfigurationException(
                f"Tensorize({self._chosen}): ddp_spawn, ddp_fork and ddp_notebook train copies of "
                f"the module in other processes, and this one would keep its full tables. Use "
                f"strategy='ddp', or replace them before: Tensorize(…).replace(module)."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a module or optimizers that would not train the cores."""
        check_places(pl_module, self._placed, [], self._chosen)
        dense, _, trains = self._replacement.waiting(pl_module, _sources(trainer))
        check_places(pl_module, [], dense, self._chosen)
        gone = [weight for each in self._replaced if (weight := each()) is not None]
        check_optimizers(pl_module, trains, gone, trainer.optimizers, self._chosen)
        self._replaced, self._placed = [], []
        self._watch = GradientWatch(trains)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notices which cores have gradients."""
        if self._watch is not None:
            self._watch.look()

    def on_train_batch_end(self, *_: Any) -> None:
        """Warns, once a fit, of cores that no gradient reaches."""
        if self._watch is not None:
            self._watch.warn(self._chosen)
            self._watch = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints what a state was read into; refuses tables that no state was read for."""
        if self._awaited is None:
            return
        dense, self._awaited = self._awaited.stop(), None
        if not dense:
            self._print(trainer, self.tables)
            return
        check_start(dense[0], self._replacement.cores.start, self._chosen)
        with torch.inference_mode(False):  # what is made in it could not be trained later
            self._replace_and_print(trainer, pl_module)

    on_validation_start = on_predict_start = on_test_start

    def teardown(self, *_: Any, **__: Any) -> None:
        """Leaves nothing in the module."""
        self._stop_waiting()

    on_exception = teardown

    def state_dict(self) -> dict[str, Any]:
        """Factors and ranks of each table."""
        return {
            table.name: {"rows": list(table.rows), "columns": list(table.columns),
                         "ranks": list(table.ranks)}
            for table in self.tables
        }  # fmt: skip

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuses to resume the fit of a full table, whose optimizer knows nothing of cores."""
        if trainer.state.fn == TrainerFn.FITTING:
            check_resumed(pl_module, checkpoint["state_dict"], self._chosen)

    # --- replacing --------------------------------------------------------------------------

    def replace(
        self, module: nn.Module, graph: Data | None = None, datamodule: Any = None
    ) -> list[TensorizedTable]:
        """Replaces the tables of a module without a Trainer.

        Args:
            module: Any module.
            graph: The graph of its rows; that of ``datamodule`` by default.
            datamodule: What has the graph, or the rows that train, to order by.

        Returns:
            What became of each table; empty where all are tensor trains already.

        Raises:
            ValueError: As the class.
        """
        sources = OrderSources.of(datamodule)
        if graph is not None:
            sources = OrderSources(graph, datamodule)
        return self._replace(module, sources)

    def _replace(
        self,
        module: nn.Module,
        sources: OrderSources,
        trainer: Trainer | None = None,
        values_follow: bool = False,
    ) -> list[TensorizedTable]:
        done = self._replacement.apply(module, sources, trainer, values_follow)
        self.left_dense = done.left_dense
        if done.tables:
            self._replaced += map(ref, done.weights)
            self._made.keep(module, done.tables)
            convert_full_tables(module)
        warn_of_growth(done.tables, self._chosen)
        return done.tables

    def _replace_and_print(
        self, trainer: Trainer, module: LightningModule
    ) -> list[TensorizedTable]:
        known = [each.name for each in self.left_dense]
        replaced = self._replace(module, _sources(trainer), trainer)
        self._print(trainer, replaced, known)
        return replaced

    def _print(
        self, trainer: Trainer, tables: list[TensorizedTable], known: Sequence[str] = ()
    ) -> None:
        if self.verbose and trainer.is_global_zero:
            left = [each for each in self.left_dense if each.name not in known]
            unchosen = self._replacement.orders.order is None
            print_tables(tables, left, note_on_order(tables) if unchosen else None)

    def _stop_waiting(self) -> None:
        if self._awaited is not None:
            self._awaited.stop()
        self._awaited = None


def _sources(trainer: Trainer) -> OrderSources:
    return OrderSources.of(getattr(trainer, "datamodule", None))
