"""Tensorize: embedding tables of any LightningModule, replaced by tensor trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch_geometric.data import Data

from lit_gnncompress.callbacks.full_tables import convert_full_tables
from lit_gnncompress.callbacks.quantize import _REFUSED_STRATEGIES
from lit_gnncompress.callbacks.tables import (
    TensorizedTable,
    edges_of_rows,
    find_tables,
    print_tables,
    put,
)
from lit_gnncompress.embedding import (
    NodeOrder,
    TTEmbedding,
    TTShape,
    graph_rows,
    hierarchical_order,
)
from lit_gnncompress.embedding.cores import Init, check_init
from lit_gnncompress.embedding.order_methods import Method
from lit_gnncompress.plan import near_matches

_WITHOUT_GRAPH = ("random", "none")
_NO_EDGES = torch.empty(2, 0, dtype=torch.long)
_PART_SIZE = 50  # nodes in a part of the first level, where a size does not ask for larger ones


class Tensorize(Callback):
    """Replaces embedding tables of a LightningModule by tensor trains (Nimble GNN, TT-Rec).

    The module is not touched by hand: each ``nn.Embedding`` that is named becomes a
    :class:`~lit_gnncompress.embedding.TTEmbedding` in ``setup``, before optimizers are made and
    before a checkpoint is read. Neighbours in the graph share leading digits, and so cores: rows
    are ordered by rank zero alone, by the graph of the datamodule (its attribute ``data``, a
    :class:`~torch_geometric.data.Data`) or by ``edge_index``. What shrank is printed.

    Checkpoints of the fit load with this callback in the Trainer. One of the full table can be
    tested or predicted with: its rows become cores as it is read. To train on from it, load its
    weights into the module first, and take ``start="table"``.

    Works with :class:`Quantize` and :class:`QuantizationFinetuning`, which quantize features and
    leave tables alone. Where tables differ in rank or graph, give a callback for each.

    Args:
        modules: Names of the ``nn.Embedding`` modules, their tails (``embedding`` for
            ``model.embedding``), or globs.
        rank: Rank between all cores, or each inner rank; 8 if neither it nor a size is given.
        order: Order of the rows: ``"metis"`` (recursive, part borders are digit borders),
            ``"flat_metis"``, ``"community"``, ``"degree"``, ``"random"``, ``"none"``, or a
            :class:`~lit_gnncompress.embedding.NodeOrder` made before.
        rows: Factors of the rows; by default those of
            :func:`~lit_gnncompress.embedding.graph_rows` for an order by graph, else balanced.
        columns: Factors of the columns; balanced by default.
        compression: Numbers of the table for each number of the cores, at least.
        max_bytes: Bytes of the cores, at most.
        parts: Whether each part of the order has a vector of its own, which is added; or the
            levels whose parts have.
        init: How cores start, see :func:`~lit_gnncompress.embedding.initial_cores`.
        learn_scale: Whether the cores share a factor that is trained.
        start: ``"fresh"``: cores of a random table whose entries are as large as those of the
            table replaced, in root mean square; or ``"table"``: the cores nearest to it (TT-SVD).
            Whether it was trained cannot be seen.
        edge_index: Edges between the rows of the tables, int64 of shape ``(2, E)``, where the
            datamodule has no graph, or another.
        seed: Seed of the order.
        cache_dir: Folder where orders are kept, see
            :func:`~lit_gnncompress.embedding.hierarchical_order`.
        verbose: Whether what shrank is printed.

    Attributes:
        tables: What became of each table.

    Raises:
        ValueError: A name without a table, a table that cannot be replaced, arguments that do not
            fit it, or no graph to order its rows by.
        MisconfigurationException: Two callbacks for one table, a strategy that shards modules, or
            a fit that resumes from a checkpoint of the full table.

    Example:
        >>> from lit_gnncompress.callbacks import Tensorize
        >>> tensorize = Tensorize(["embedding"], rank=8)
        >>> # Trainer(callbacks=[tensorize]).fit(module, data); then
        >>> tensorize.tables
        []
    """

    def __init__(
        self,
        modules: Sequence[str],
        rank: int | list[int] | None = None,
        order: Method | NodeOrder = "metis",
        rows: Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
        compression: float | None = None,
        max_bytes: int | None = None,
        parts: bool | list[int] = False,
        init: Init = "semi_orthogonal",
        learn_scale: bool = False,
        start: Literal["fresh", "table"] = "fresh",
        edge_index: Tensor | None = None,
        seed: int = 0,
        cache_dir: str | Path | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(modules, str) or not modules:
            raise ValueError(f"modules={modules!r}: give a list of names, such as ['embedding'].")
        names = get_args(Method)
        if not isinstance(order, NodeOrder) and order not in names:
            hint = near_matches(str(order), names)
            raise ValueError(f"order={order!r} is unknown.{hint} Known: {', '.join(names)}.")
        if start not in ("fresh", "table"):
            raise ValueError(f"start={start!r} is unknown: choose 'fresh' or 'table'.")
        if parts and order == "none":
            raise ValueError(f"parts={parts} needs an order, which tells the parts: order='none'.")
        check_init(init, 1.0)
        self.modules = list(modules)
        self.order = order
        self.rows = order.rows if isinstance(order, NodeOrder) and rows is None else rows
        self.start = start
        self.edge_index = edge_index
        self.seed = seed
        self.cache_dir = cache_dir
        self.verbose = verbose
        self.tables: list[TensorizedTable] = []
        self._options: dict[str, Any] = {
            "rank": rank,
            "columns": columns,
            "compression": compression,
            "max_bytes": max_bytes,
            "parts": parts,
            "learn_scale": learn_scale,
        }
        self._init = init
        self._replaced: list[Tensor] = []

    @property
    def state_key(self) -> str:
        """Tells callbacks for different tables apart."""
        return self._generate_state_key(modules=self.modules)

    # --- hooks ------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replaces the tables, once per module."""
        if isinstance(trainer.strategy, _REFUSED_STRATEGIES):
            raise MisconfigurationException(
                f"Tensorize does not work with {type(trainer.strategy).__name__}, which shards "
                f"modules. Use strategy='ddp' or a single device."
            )
        if is_overridden("configure_model", pl_module):
            pl_module.configure_model()  # Lightning calls it after setup; it may be called twice
        graph = getattr(getattr(trainer, "datamodule", None), "data", None)
        replaced = self._replace(pl_module, graph, trainer)
        if replaced and self.verbose and trainer.is_global_zero:
            print_tables(self.tables)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses an optimizer that trains a table which is no longer there."""
        gone = {id(weight) for weight in self._replaced}
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                if any(id(parameter) in gone for parameter in group["params"]):
                    raise MisconfigurationException(
                        f"An optimizer holds a table that Tensorize replaced ({self.modules}): "
                        f"make optimizers in configure_optimizers, from self.parameters()."
                    )
        self._replaced = []

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
        resumes = trainer.state.fn == TrainerFn.FITTING
        if resumes and self.state_key not in checkpoint.get("callbacks", {}):
            raise MisconfigurationException(
                f"The checkpoint was trained without Tensorize(modules={self.modules}), so that "
                f"its optimizer cannot go on with cores. Start a new fit from its weights: "
                f"module.load_state_dict, then fit with start='table' and without ckpt_path."
            )

    # --- replacing --------------------------------------------------------------------------

    def replace(self, module: nn.Module, graph: Data | None = None) -> list[TensorizedTable]:
        """Replaces the tables of a module without a Trainer.

        Args:
            module: Any module.
            graph: The graph of its rows, where the callback has no ``edge_index`` and no
                ``order`` that needs none.

        Returns:
            What became of each table; empty where all are tensor trains already.

        Raises:
            ValueError: As the class.
        """
        return self._replace(module, graph, None)

    def _replace(
        self, module: nn.Module, graph: Any, trainer: Trainer | None
    ) -> list[TensorizedTable]:
        found, there = find_tables(module, self.modules)
        for name, cores in there.items():
            self._check_shape(name, cores)
        orders: dict[tuple[int, ...], NodeOrder | None] = {}
        made, done = [], []
        for each in found:
            table = each.module
            rows = self._shape(table).rows
            key = (table.num_embeddings, *rows)
            if key not in orders:
                orders[key] = self._shared_order(each.names[0], key[0], rows, graph, trainer)
            cores, error = self._cores(table, rows, orders[key])
            method = "none" if (order := orders[key]) is None else order.method
            made.append(cores)
            done.append(TensorizedTable.of(each.names[0], cores, method, error))
        if not done:
            return []
        for each, cores in zip(found, made, strict=True):  # all of them, or none
            put(module, each.names, cores)
            self._replaced.append(each.module.weight)
        convert_full_tables(module)
        self.tables = done
        return done

    def _check_shape(self, name: str, cores: TTEmbedding) -> None:
        """Refuses a table of an earlier callback that this one would have made otherwise."""
        wanted, shape = self._shape(cores), cores.shape
        by_rank = self._options["rank"] is not None
        if (shape.rows, shape.columns) != (wanted.rows, wanted.columns) or (
            by_rank and shape.ranks != wanted.ranks
        ):
            raise ValueError(
                f"modules: {name!r} is a tensor train already, of rows={shape.rows}, columns="
                f"{shape.columns}, rank={shape.ranks}, and not of rows={wanted.rows}, columns="
                f"{wanted.columns}, rank={wanted.ranks}: make the module anew, or leave it out."
            )

    def _shape(self, table: nn.Embedding | TTEmbedding) -> TTShape:
        """Factors for a table, and its ranks as they are without vectors of parts."""
        options = {**self._options, "parts": False, "init": self._init, "device": "meta"}
        size = (table.num_embeddings, table.embedding_dim)
        if self.rows is not None or self.order in _WITHOUT_GRAPH:
            return TTEmbedding(*size, rows=self.rows, **options).shape
        part_size = _PART_SIZE
        while True:
            try:
                rows = graph_rows(size[0], part_size=part_size)
                return TTEmbedding(*size, rows=rows, **options).shape
            except ValueError:  # more parts than the size allows
                if part_size >= size[0]:
                    raise
                part_size *= 2

    def _shared_order(
        self,
        name: str,
        num_embeddings: int,
        rows: tuple[int, ...],
        graph: Any,
        trainer: Trainer | None,
    ) -> NodeOrder | None:
        """The order of a table's rows, the same in every process."""
        if isinstance(self.order, NodeOrder) or self.order == "none":
            return self.order if isinstance(self.order, NodeOrder) else None
        order: NodeOrder | None = None
        problem: Exception | None = None
        if trainer is None or trainer.is_global_zero:
            try:
                edges = self.edge_index
                if edges is None:
                    by_graph = self.order not in _WITHOUT_GRAPH
                    edges = edges_of_rows(name, num_embeddings, graph) if by_graph else _NO_EDGES
                order = hierarchical_order(
                    edges,
                    num_embeddings,
                    rows,
                    method=self.order,
                    seed=self.seed,
                    cache_dir=self.cache_dir,
                    progress=self.verbose,
                )
            except Exception as error:  # the others wait below, whatever happened
                problem = error
        if trainer is not None:
            order, problem = trainer.strategy.broadcast((order, problem))
        if problem is not None:
            raise problem
        return order

    def _cores(
        self, table: nn.Embedding, rows: tuple[int, ...], order: NodeOrder | None
    ) -> tuple[TTEmbedding, float | None]:
        """The tensor train, and the share of the table that it lost if it starts from it."""
        weight = table.weight.detach()
        arguments = {**self._options, "rows": rows, "order": order}
        error = None
        if self.start == "table":
            cores = TTEmbedding.from_pretrained(
                weight, freeze=False, padding_idx=table.padding_idx, **arguments
            )
            if weight.numel():
                lost = torch.linalg.vector_norm(cores.full_weight().detach() - weight)
                error = float(lost / torch.linalg.vector_norm(weight))
        else:
            spread = float(weight.float().square().mean().sqrt())
            cores = TTEmbedding(
                table.num_embeddings,
                table.embedding_dim,
                table.padding_idx,
                std=spread if 0 < spread < math.inf else 1.0,
                init=self._init,
                device=weight.device,
                dtype=weight.dtype,
                **arguments,
            )
        cores.requires_grad_(table.weight.requires_grad)
        return cores.train(table.training), error
