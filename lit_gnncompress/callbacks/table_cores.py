"""Cores for a table: of which shape they are, what they cost, and where they start."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lit_gnncompress.callbacks.row_orders import BY_GRAPH, Order
from lit_gnncompress.callbacks.tables import DenseModule, Train
from lit_gnncompress.embedding import (
    NodeOrder,
    TTEmbedding,
    TTEmbeddingBag,
    TTShape,
    balanced_columns,
    graph_rows,
    smallest_rows,
)
from lit_gnncompress.embedding.choosing import parameters_within
from lit_gnncompress.embedding.cores import Init, check_init
from lit_gnncompress.embedding.train_table import TrainTable

Start = Literal["fresh", "table", "structure"]
Rows = Sequence[int] | Literal["smallest"]

_PART_SIZE = 50  # nodes in a part of the first level, where a size does not ask for larger ones
_ROOM = 1.05  # places for each row, where an order cuts the rows into parts
_CHUNK = 2**16  # rows in memory once more
_RANK = 8  # if neither it nor a size is given
_WORTH = 2  # numbers of a table for each of its cores: with fewer, they only make it slower


@dataclass(frozen=True)
class TableCores:
    """Makes cores of tables, as the arguments of ``Tensorize`` of these names say.

    Raises:
        ValueError: An ``init``, a ``start`` or ``rows`` that there are not, or the smallest ones
            without a rank.
    """

    rank: int | list[int] | None
    rows: Rows | None
    columns: Sequence[int] | None
    compression: float | None
    max_bytes: int | None
    parts: bool | list[int]
    init: Init
    learn_scale: bool
    start: Start

    def __post_init__(self) -> None:
        if self.start not in get_args(Start):
            raise ValueError(
                f"start={self.start!r} is unknown: choose {', '.join(map(repr, get_args(Start)))}."
            )
        check_init(self.init, 1.0)
        if isinstance(self.rows, str):
            self._check_smallest()

    def shape(self, table: DenseModule | Train, method: Order | None) -> TTShape:
        """Factors and ranks for a table; a size allows its vectors of parts, too.

        Args:
            table: The table, or the tensor train that stands where it stood.
            method: How its rows are to be ordered.

        Raises:
            ValueError: Arguments that do not fit the table.
        """
        num_embeddings = table.num_embeddings
        places = num_embeddings
        if method == "cooccurrence" or (self.rows == "smallest" and method in BY_GRAPH):
            places = math.ceil(_ROOM * places)
        if self.rows == "smallest":
            return self._smallest(table, places)
        if self.rows is not None:
            return self._shape_of(table, self.rows)
        if places > num_embeddings:
            return self._shape_of(table, self._shape_of(table, None, places).rows)
        if method not in BY_GRAPH:
            return self._shape_of(table, None)
        part_size = _PART_SIZE
        while True:
            try:
                return self._shape_of(table, graph_rows(num_embeddings, part_size=part_size))
            except ValueError:  # more parts than the size allows
                if part_size >= num_embeddings:
                    raise
                part_size *= 2

    def cost(self, shape: TTShape) -> int:
        """Numbers of cores of this shape, and of what else comes with them."""
        parts = self._numbers_of_parts(shape.rows, shape.embedding_dim)
        return shape.num_parameters + parts + self.learn_scale

    def worthwhile(
        self, table: DenseModule, method: Order | None
    ) -> tuple[TTShape, bool, str | None]:
        """The shape for a table, whether it is half as large or less, and a size that it exceeds.

        Where a ``compression`` or ``max_bytes`` cannot be had, even at rank 1, it is the shape of
        that rank.

        Raises:
            ValueError: As :meth:`shape`.
        """
        full = table.num_embeddings * table.embedding_dim
        try:
            shape = self.shape(table, method)
        except ValueError:
            allowed = parameters_within(
                table.num_embeddings,
                table.embedding_dim,
                table.weight.dtype,
                compression=self.compression,
                max_bytes=self.max_bytes,
            )
            if allowed is None:
                raise
            least = replace(self, rank=1, compression=None, max_bytes=None)
            shape = least.shape(table, method)
            if self.cost(shape) <= allowed:
                raise
            return shape, False, self._sizes[0]
        return shape, full >= _WORTH * self.cost(shape), None

    def make(
        self,
        table: DenseModule,
        rows: tuple[int, ...],
        order: NodeOrder | None,
        vectors: Tensor | None = None,
    ) -> tuple[TrainTable, float | None]:
        """The tensor train, and the share of the table that it lost if it starts from it.

        Args:
            table: What it replaces.
            rows: Factors of the rows.
            order: Order of the rows.
            vectors: Shape ``(N, D)``, root mean square 1: what cores start from, scaled to the size
                of the table's entries, for ``start="structure"``.

        Raises:
            ValueError: A table without entries to start from.
        """
        weight = table.weight.detach()
        arguments: dict[str, Any] = {"parts": self.parts, "rows": rows, "order": order}
        arguments |= {**self._options, "padding_idx": table.padding_idx}
        kind: type[TrainTable] = TTEmbedding
        if isinstance(table, nn.EmbeddingBag):
            kind = TTEmbeddingBag
            arguments |= {"mode": table.mode, "include_last_offset": table.include_last_offset}
        if self.start == "table":
            if weight.is_meta:
                raise ValueError(
                    "start='table': the table is on the device 'meta' and has no entries to start "
                    "from. Load it, or take start='fresh'."
                )
            cores = kind.from_pretrained(weight, freeze=False, **arguments)
            error = lost_share(cores, weight)
        else:
            error = None
            spread = getattr(table, "init_std", 1.0) if weight.is_meta else _spread(weight)
            if not math.isfinite(spread):
                raise ValueError("the table has entries that are not finite: mend them before.")
            is_zero, spread = spread == 0, spread or 1.0
            device = torch.device("cpu") if weight.is_meta else weight.device
            if vectors is not None:
                vectors = (vectors * spread).to(device, weight.dtype)
                cores = kind.from_pretrained(vectors, freeze=False, **arguments)
            else:
                cores = kind(
                    table.num_embeddings,
                    table.embedding_dim,
                    std=spread,
                    init=self.init,
                    device=device,
                    dtype=weight.dtype,
                    **arguments,
                )
                if is_zero:  # as biases start
                    cores.zero_cores_()
                    for of_parts in () if cores.parts is None else cores.parts.parameters():
                        nn.init.zeros_(of_parts)
        cores.requires_grad_(table.weight.requires_grad)
        return cores.train(table.training), error

    def _shape_of(
        self,
        table: DenseModule | Train,
        rows: Sequence[int] | None,
        num_embeddings: int | None = None,
    ) -> TTShape:
        size = table.num_embeddings if num_embeddings is None else num_embeddings
        options: dict[str, Any] = {**self._options, "init": self.init, "device": "meta"}
        # Quantized cores are no parameters.
        dtype = next((p.dtype for p in table.parameters()), torch.get_default_dtype())
        options["dtype"] = dtype
        parts = 0 if rows is None else self._numbers_of_parts(rows, table.embedding_dim)
        if not parts or not self._sizes:
            return TTEmbedding(size, table.embedding_dim, rows=rows, **options).shape
        allowed = parameters_within(
            size, table.embedding_dim, dtype, compression=self.compression, max_bytes=self.max_bytes
        )
        assert allowed is not None
        options |= {"compression": None, "max_bytes": (allowed - parts) * dtype.itemsize}
        try:
            return TTEmbedding(size, table.embedding_dim, rows=rows, **options).shape
        except ValueError as problem:
            raise ValueError(
                f"{self._sizes[0]} allows {allowed} numbers, of which vectors of parts take "
                f"{parts}. For the cores: {problem}"
            ) from problem

    def _numbers_of_parts(self, rows: Sequence[int], embedding_dim: int) -> int:
        levels = [1] if self.parts is True else self.parts or []
        return embedding_dim * sum(math.prod(rows[:level]) for level in levels)

    def _smallest(self, table: DenseModule | Train, places: int) -> TTShape:
        """Of all shapes with the highest ranks that with the fewest parameters."""
        rank = self.rank if isinstance(self.rank, int) else _RANK
        columns = self.columns or balanced_columns(table.embedding_dim)
        orders = {tuple(columns)} if self.columns else {*itertools.permutations(columns)}
        rows = sorted({smallest_rows(places, order, rank) for order in orders})
        shapes = [self._shape_of(table, factors) for factors in rows]
        return min(shapes, key=lambda shape: (-sum(shape.ranks), shape.num_parameters))

    def _check_smallest(self) -> None:
        if self.rows != "smallest":
            raise ValueError(f"rows={self.rows!r}: give factors, or 'smallest'.")
        given = self._sizes
        if not isinstance(self.rank, int | None):
            given.append(f"rank={self.rank}")
        if given:
            raise ValueError(
                f"rows='smallest' and {given[0]}: which rows are the smallest depends on the rank. "
                f"Give one, as a number."
            )

    @property
    def _sizes(self) -> list[str]:
        """The arguments that say how large cores may be."""
        sizes = {"compression": self.compression, "max_bytes": self.max_bytes}
        return [f"{name}={value}" for name, value in sizes.items() if value is not None]

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "columns": self.columns,
            "compression": self.compression,
            "max_bytes": self.max_bytes,
            "learn_scale": self.learn_scale,
        }


def lost_share(cores: TrainTable, weight: Tensor) -> float | None:
    """Share of a table that cores do not hold, by Frobenius norm; ``None`` of a table of zeros."""
    size = float(torch.linalg.vector_norm(weight))
    if size == 0:
        return None
    return float(torch.linalg.vector_norm(cores.full_weight().detach() - weight)) / size


def _spread(weight: Tensor) -> float:
    """Root mean square of a table, without a copy of it."""
    squares = sum(float(part.double().square().sum()) for part in weight.split(_CHUNK))
    return math.sqrt(squares / weight.numel()) if weight.numel() else 0.0
