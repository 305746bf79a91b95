"""Tables of a module replaced by tensor trains: all that are chosen, or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from torch import Tensor, nn

from lit_gnncompress.callbacks.row_orders import BY_ROWS, OrderSources, RowOrders
from lit_gnncompress.callbacks.table_cores import TableCores
from lit_gnncompress.callbacks.tables import (
    DenseModule,
    FoundTable,
    Train,
    find_tables,
    largest_tables,
    named_tables,
    put,
)
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
        modules: Their names, tails or globs; ``None`` for the largest.
        largest: How many of the largest; ``None`` for those that are named.
        orders: Makes the orders of their rows.
        cores: Makes their cores.
    """

    modules: list[str] | None
    largest: int | None
    orders: RowOrders
    cores: TableCores

    @property
    def chosen(self) -> str:
        """The argument of ``Tensorize`` that says which tables."""
        if self.modules is None:
            return f"tables='largest:{self.largest}'"
        return f"modules={self.modules}"

    def apply(
        self, module: nn.Module, sources: OrderSources, trainer: Trainer | None = None
    ) -> Replaced:
        """Replaces the tables of a module.

        Args:
            module: Any module.
            sources: What orders can be made of.
            trainer: Whose processes share what the first one finds.

        Raises:
            ValueError: As :class:`~lit_gnncompress.callbacks.Tensorize`; then nothing is replaced.
        """
        found, left = self._find(module, sources)
        orders: dict[tuple[Any, ...], NodeOrder | None] = {}
        made, done = [], []
        for each in found:
            table, name = each.module, each.names[0]
            method = self.orders.method(table.num_embeddings, sources)
            rows = self.cores.shape(table, method).rows
            key = (table.num_embeddings, rows, name if method in BY_ROWS else "")
            if key not in orders:
                make = partial(self.orders.make, name, table.num_embeddings, rows, sources)
                orders[key] = _of_rank_zero(make, trainer)
            order = orders[key]
            cores, error = self.cores.make(table, rows, order, self._vectors(name, table, sources))
            made.append(cores)
            how = "none" if order is None else order.method
            done.append(TensorizedTable.of(name, cores, how, error))
        for each, cores in zip(found, made, strict=True):
            put(module, each.names, cores)
        return Replaced(done, left, [each.module.weight for each in found])

    def _vectors(self, name: str, table: DenseModule, sources: OrderSources) -> Tensor | None:
        """What cores start from, where it is neither chance nor the table."""
        if self.cores.start != "structure":
            return None
        rows = table.num_embeddings
        edges = self.orders.edges(name, rows, sources, "started by the structure of a graph")
        return structural_vectors(edges, rows, table.embedding_dim, seed=self.orders.seed)

    def _find(
        self, module: nn.Module, sources: OrderSources
    ) -> tuple[list[FoundTable], list[DenseTable]]:
        """Tables that are to become tensor trains, and those that are better left as they are."""
        if self.largest is None:
            found, there = find_tables(module, named_tables(module, self.modules or []), "modules")
        else:
            names = largest_tables(module, self.largest)
            found, there = find_tables(module, names, self.chosen)
        for name, cores in there.items():
            self._check_shape(name, cores, sources)
        if self.largest is None:
            return found, []
        smaller, left = [], []
        for each in found:
            method = self.orders.method(each.module.num_embeddings, sources)
            shape, gains = self.cores.worthwhile(each.module, method)
            if gains:
                smaller.append(each)
            else:
                left.append(DenseTable.of(each.names[0], each.module, self.cores.cost(shape)))
        return smaller, left

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
            way = "leave it out" if self.largest is None else "name the others by modules"
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
