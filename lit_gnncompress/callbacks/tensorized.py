"""What became of embedding tables, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

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
        error: Share of the table that its cores do not hold, by Frobenius norm; ``None`` where
            they started afresh.
    """

    name: str
    num_embeddings: int
    embedding_dim: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    ranks: tuple[int, ...]
    order: str
    parameters: int
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
            error,
        )

    @property
    def reduction(self) -> float:
        """Numbers of the table for each that is left."""
        return self.num_embeddings * self.embedding_dim / self.parameters


@dataclass(frozen=True)
class DenseTable:
    """A table that stayed as it is, because cores would save too little.

    Attributes:
        name: Its first name in the module.
        num_embeddings: Rows of the table.
        embedding_dim: Columns of the table.
        parameters: Numbers that cores and vectors of parts would have.
    """

    name: str
    num_embeddings: int
    embedding_dim: int
    parameters: int

    @classmethod
    def of(cls, name: str, table: DenseModule, parameters: int) -> DenseTable:
        """A table of this name."""
        return cls(name, table.num_embeddings, table.embedding_dim, parameters)


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
        console.print(
            f"{left.name} ({left.num_embeddings:,} × {left.embedding_dim}) is left dense: its "
            f"cores would have {left.parameters:,} numbers, the table has {size:,}.",
            highlight=False,
        )
    if note:
        console.print(note, highlight=False)


def _table(tables: Sequence[TensorizedTable]) -> Table:
    view = Table(title="Embedding tables as tensor trains", padding=(0, 0))
    view.add_column("table", overflow="fold")
    for name in ("size", "row factors", "ranks"):
        view.add_column(name, justify="right", no_wrap=True)
    view.add_column("order")
    with_error = any(table.error is not None for table in tables)
    for name in ("before", "after", "saving", *(["error"] if with_error else [])):
        view.add_column(name, justify="right", no_wrap=True)
    for table in tables:
        view.add_row(
            table.name,
            f"{table.num_embeddings:,} × {table.embedding_dim}",
            " ".join(map(str, table.rows)),
            " ".join(map(str, table.ranks)),
            table.order,
            f"{table.num_embeddings * table.embedding_dim:,}",
            f"{table.parameters:,}",
            f"{table.reduction:.1f}×",
            *([] if not with_error else ["" if table.error is None else f"{table.error:.1%}"]),
        )
    return view
