"""What became of embedding tables, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import ref

from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from rich.table import Table
from torch import nn

from lit_gnncompress.callbacks.tables import DenseModule
from lit_gnncompress.embedding.train_table import TrainTable


@dataclass(frozen=True)
class TensorizedTable:
    """What became of a table.

    Attributes:
        name: Its first name in the module.
        num_embeddings: Rows of the table.
        embedding_dim: Columns of the table.
        rows: Factors of the rows.
        columns: Factors of the columns.
        ranks: Inner ranks.
        order: How its rows were ordered.
        parameters: Trainable numbers that took the place of all of the table's.
        num_bytes: Bytes of all that is kept: of these, and of the order.
        full_bytes: Bytes of the table.
        error: Share of the table that its cores do not hold, by Frobenius norm: of the one they
            started from, or of a state of it that was read later; ``None`` where there was none.
    """

    name: str
    num_embeddings: int
    embedding_dim: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    ranks: tuple[int, ...]
    order: str
    parameters: int
    num_bytes: int
    full_bytes: int
    error: float | None = None

    @classmethod
    def of(cls, name: str, cores: TrainTable, order: str, error: float | None) -> TensorizedTable:
        """What a table of this name became."""
        return cls(
            name,
            cores.num_embeddings,
            cores.embedding_dim,
            cores.shape.rows,
            cores.shape.columns,
            cores.shape.ranks,
            order,
            sum(parameter.numel() for parameter in cores.parameters()),
            cores.num_bytes,
            cores.num_embeddings * cores.embedding_dim * cores.cores[0].element_size(),
            error,
        )

    @property
    def reduction(self) -> float:
        """Numbers of the table for each that is trained in their place."""
        return self.num_embeddings * self.embedding_dim / self.parameters

    @property
    def saving(self) -> float:
        """Bytes of the table for each that is kept, of the order too."""
        return self.full_bytes / self.num_bytes


@dataclass(frozen=True)
class DenseTable:
    """A table that stayed as it is, because cores would save too little.

    Attributes:
        name: Its first name in the module.
        num_embeddings: Rows of the table.
        embedding_dim: Columns of the table.
        parameters: Numbers that cores and vectors of parts would have.
        unmet: The size that was asked for, where even they are too large for it.
    """

    name: str
    num_embeddings: int
    embedding_dim: int
    parameters: int
    unmet: str | None = None

    @classmethod
    def of(
        cls, name: str, table: DenseModule, parameters: int, unmet: str | None = None
    ) -> DenseTable:
        """A table of this name."""
        return cls(name, table.num_embeddings, table.embedding_dim, parameters, unmet)


class MadeTables:
    """What became of the tables of a module, kept while its cores may read other ones."""

    def __init__(self) -> None:
        self._tables: list[TensorizedTable] = []
        self._cores: dict[str, ref[TrainTable]] = {}

    def keep(self, module: nn.Module, tables: list[TensorizedTable]) -> None:
        """Takes the place of what was kept before."""
        cores = {table.name: module.get_submodule(table.name) for table in tables}
        self._cores = {n: ref(each) for n, each in cores.items() if isinstance(each, TrainTable)}
        self._tables = tables

    @property
    def tables(self) -> list[TensorizedTable]:
        """What became of each, with the share that was lost when a full table was read."""
        return [self._after_reading(table) for table in self._tables]

    def __getstate__(self) -> dict[str, Any]:
        """All but the references, which other processes could not be given."""
        return {"_tables": self.tables, "_cores": {}}

    def _after_reading(self, table: TensorizedTable) -> TensorizedTable:
        cores = self._cores[table.name]() if table.name in self._cores else None
        lost = None if cores is None else cores.lost_share
        return table if lost is None else replace(table, error=lost)


def warn_of_growth(tables: Sequence[TensorizedTable], chosen: str) -> None:
    """Warns of tables that have more numbers as tensor trains.

    Args:
        tables: What became of them.
        chosen: The argument of ``Tensorize`` that says which tables.
    """
    for table in tables:
        if table.reduction < 1:
            size = table.num_embeddings * table.embedding_dim
            rank_zero_warn(
                f"Tensorize({chosen}): {table.name!r} has grown, from {size:,} numbers to "
                f"{table.parameters:,}: leave it out, or take a lower rank."
            )


def print_tables(
    tables: Sequence[TensorizedTable],
    left_dense: Sequence[DenseTable] = (),
    note: str | None = None,
    console: Console | None = None,
) -> None:
    """Prints what shrank, a line per table, and what did not.

    Args:
        tables: Those that became tensor trains.
        left_dense: Those that stayed.
        note: What else is to be said.
        console: Where to print; the standard output by default.
    """
    console = console or Console()
    if tables:
        console.print(_table(tables))
    for left in left_dense:
        size = left.num_embeddings * left.embedding_dim
        which = "cores" if left.unmet is None else f"cores, too large for {left.unmet} at rank 1,"
        console.print(
            f"{left.name} ({left.num_embeddings:,} × {left.embedding_dim}) is left dense: its "
            f"{which} would have {left.parameters:,} numbers, the table has {size:,}.",
            highlight=False,
        )
    if note:
        console.print(note, highlight=False)


def note_on_order(tables: Sequence[TensorizedTable]) -> str | None:
    """What to say of tables that have no order because nobody chose one; ``None`` without any."""
    if not (unordered := [table.name for table in tables if table.order == "none"]):
        return None
    return (
        f"No order for the rows of {', '.join(unordered)}, since there is no graph of them: "
        f"see Tensorize(order=…)."
    )


def _table(tables: Sequence[TensorizedTable]) -> Table:
    """Two lines a table: so wide that most fit a terminal of 80 columns."""
    view = Table(
        title="Embedding tables as tensor trains",
        caption="numbers: those trained; bytes: these and the order of rows",
        show_lines=True,
    )
    view.add_column("table\nsize", overflow="fold")
    with_error = any(table.error is not None for table in tables)
    for name in ("row factors\nranks", "order\nerror" if with_error else "order\n"):
        view.add_column(name, no_wrap=True)
    for name in ("numbers\nfewer", "bytes\nsmaller"):
        view.add_column(name, justify="right", no_wrap=True)
    for table in tables:
        error = "" if table.error is None else f"{table.error:.1%}"
        view.add_row(
            f"{table.name}\n{table.num_embeddings:,} × {table.embedding_dim}",
            f"{' '.join(map(str, table.rows))}\n{' '.join(map(str, table.ranks))}",
            f"{table.order}\n{error}",
            f"{table.parameters:,}\n{table.reduction:,.1f}×",
            f"{table.num_bytes:,}\n{table.saving:,.1f}×",
        )
    return view
