"""Tables of a module replaced by tensor trains: all that are chosen, or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from torch import Tensor, nn

from lit_gnncompress.callbacks.chosen_tables import ChosenTables
from lit_gnncompress.callbacks.row_orders import BY_ROWS, OrderSources, RowOrders
from lit_gnncompress.callbacks.table_cores import TableCores
from lit_gnncompress.callbacks.tables import DenseModule, FoundTable, Train, put
from lit_gnncompress.callbacks.tensorized import DenseTable, TensorizedTable
from lit_gnncompress.embedding import NodeOrder, structural_vectors


class Replaced(NamedTuple):
    """What was done to a module.

    Attributes:
        tables: What became of each table that was replaced.
        left_dense: Those of the largest that stayed.
        weights: Tables that are no longer there.
    """

    tables: list[TensorizedTable]
    left_dense: list[DenseTable]
    weights: list[Tensor]


@dataclass(frozen=True)
class Replacement:
    """Which tables are replaced, and by what.

    Attributes:
        chosen: Says which, and finds them.
        orders: Makes the orders of their rows.
        cores: Makes their cores.
    """

    chosen: ChosenTables
    orders: RowOrders
    cores: TableCores

    def apply(
        self,
        module: nn.Module,
        sources: OrderSources,
        trainer: Trainer | None = None,
        values_follow: bool = False,
    ) -> Replaced:
        """Replaces the tables of a module.

        Args:
            module: Any module.
            sources: What orders can be made of.
            trainer: Whose processes share what the first one finds.
            values_follow: Whether a state brings the values, wherever cores are to start.

        Raises:
            ValueError: As :class:`~lit_gnncompress.callbacks.Tensorize`; then nothing is replaced.
        """
        chosen, there = self.chosen.find(module)
        found, left = self._worthwhile(chosen, sources)
        if values_follow:
            maker = replace(self.cores, start="fresh")
        else:
            maker = self.cores
            for name, table in there.items():
                self._check_shape(name, table, sources)
            for each in found:
                self._check_trained(each)
        orders: dict[tuple[Any, ...], NodeOrder | None] = {}
        made, done = [], []
        for each in found:
            dense, name = each.module, each.names[0]
            size = dense.num_embeddings
            method = self.orders.method(size, sources)
            try:
                rows = maker.shape(dense, method).rows
            except ValueError as problem:
                raise ValueError(f"{self.chosen}: {name!r}: {problem}") from problem
            key = (size, rows, name if method in BY_ROWS else "")
            if key not in orders:
                make = partial(self.orders.make, name, size, rows, sources)
                orders[key] = _of_rank_zero(make, trainer)
            order, vectors = orders[key], None
            if maker.start == "structure":
                vectors = self._vectors(name, dense, sources)
            cores, error = maker.make(dense, rows, order, vectors)
            made.append(cores)
            how = "none" if order is None else order.method
            done.append(TensorizedTable.of(name, cores, how, error))
        for each, cores in zip(found, made, strict=True):
            put(module, each.names, cores)
        return Replaced(done, left, [each.module.weight for each in found])

    def waiting(
        self, module: nn.Module, sources: OrderSources
    ) -> tuple[list[FoundTable], list[DenseTable], dict[str, Train]]:
        """Tables that :meth:`apply` would replace or leave, and by name those replaced already.

        Args:
            module: Any module.
            sources: What orders can be made of.

        Raises:
            ValueError: As :meth:`apply`.
        """
        found, there = self.chosen.find(module)
        return *self._worthwhile(found, sources), there

    def _vectors(self, name: str, table: DenseModule, sources: OrderSources) -> Tensor:
        """What cores start from where it is neither chance nor the table."""
        rows = table.num_embeddings
        edges = self.orders.edges(name, rows, sources, "started by the structure of a graph")
        return structural_vectors(edges, rows, table.embedding_dim, seed=self.orders.seed)

    def _worthwhile(
        self, found: list[FoundTable], sources: OrderSources
    ) -> tuple[list[FoundTable], list[DenseTable]]:
        """Tables that are to become tensor trains, and those that are better left as they are."""
        if self.chosen.largest is None:
            return found, []
        smaller, left = [], []
        for each in found:
            name, table = each.names[0], each.module
            method = self.orders.method(table.num_embeddings, sources)
            try:
                shape, gains, unmet = self.cores.worthwhile(table, method)
            except ValueError as problem:
                raise ValueError(f"{self.chosen}: {name!r}: {problem}") from problem
            if gains:
                smaller.append(each)
            else:
                left.append(DenseTable.of(name, table, self.cores.cost(shape), unmet))
        return smaller, left

    def _check_trained(self, found: FoundTable) -> None:
        """Refuses a table that would become random and stay so."""
        if self.cores.start != "table" and not found.module.weight.requires_grad:
            raise ValueError(
                f"{self.chosen}: {found.names[0]!r} is frozen, and start={self.cores.start!r} "
                f"would put cores in its place that do not have its rows and are not trained: take "
                f"start='table', or unfreeze it. A callback that freezes comes after Tensorize."
            )

    def _check_shape(self, name: str, table: Train, sources: OrderSources) -> None:
        """Refuses a table of an earlier callback that this one would have made otherwise."""
        mine, shape = self.cores, table.shape
        if self.orders.order is None and mine.rows is None:  # whichever graph there was
            mine = replace(mine, rows=shape.rows)
        wanted = mine.shape(table, self.orders.method(table.num_embeddings, sources))
        by_rank = mine.rank is not None
        if (shape.rows, shape.columns) != (wanted.rows, wanted.columns) or (
            by_rank and shape.ranks != wanted.ranks
        ):
            way = "leave it out" if self.chosen.largest is None else "name the others by modules"
            raise ValueError(
                f"{self.chosen}: {name!r} is a tensor train already, of rows={shape.rows}, "
                f"columns={shape.columns}, rank={shape.ranks}, and not of rows={wanted.rows}, "
                f"columns={wanted.columns}, rank={wanted.ranks}: make the module anew, or {way}."
            )


def _of_rank_zero(
    make: Callable[[], NodeOrder | None], trainer: Trainer | None
) -> NodeOrder | None:
    """What ``make`` returns or raises in the first process, in every process."""
    order: NodeOrder | None = None
    problem: Exception | None = None
    if trainer is None or trainer.is_global_zero:
        try:
            order = make()
        except Exception as error:  # the others wait below, whatever happened
            problem = error
    if trainer is not None:
        order, problem = trainer.strategy.broadcast((order, problem))
    if problem is not None:
        raise problem
    return order
