"""The order of a table's rows: by a graph, by rows to train on, or by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from lit_gnncompress.data.table_data_module import TableDataModule
from lit_gnncompress.embedding import NodeOrder, hierarchical_order
from lit_gnncompress.embedding.cooccurrence import cooccurrence_order, frequency_order
from lit_gnncompress.embedding.graph_hash import graph_hash
from lit_gnncompress.embedding.order_methods import Method
from lit_gnncompress.plan import near_matches

Order = Method | Literal["cooccurrence", "frequency"]

BY_GRAPH = ("metis", "flat_metis", "community", "degree")
BY_ROWS = ("cooccurrence", "frequency")

_MOST_ROWS = 2**19  # that are read to order by, spread evenly over all that train
_PIECE = 2**20  # rows whose labels are looked at together
_NO_EDGES = torch.empty(2, 0, dtype=torch.long)


@dataclass(frozen=True)
class OrderSources:
    """What orders can be made of.

    Attributes:
        graph: What a datamodule has as its ``data``.
        datamodule: The datamodule.
    """

    graph: Any = None
    datamodule: Any = None

    @classmethod
    def of(cls, datamodule: Any) -> OrderSources:
        """What a datamodule has."""
        return cls(getattr(datamodule, "data", None), datamodule)


@dataclass(frozen=True)
class RowOrders:
    """Makes orders of rows, as the arguments of ``Tensorize`` of these names say.

    Raises:
        ValueError: An ``order`` that there is not.
    """

    order: Order | NodeOrder | None
    edge_index: Tensor | None
    seed: int
    cache_dir: str | Path | None
    progress: bool

    def __post_init__(self) -> None:
        names = [*get_args(Method), *BY_ROWS]
        if not isinstance(self.order, NodeOrder | None) and self.order not in names:
            hint = near_matches(str(self.order), names)
            raise ValueError(f"order={self.order!r} is unknown.{hint} Known: {', '.join(names)}.")

    def method(self, num_embeddings: int, sources: OrderSources) -> Order | None:
        """How a table of so many rows is ordered; ``None`` for an order made before."""
        if isinstance(self.order, NodeOrder):
            return None
        if self.order is not None:
            return self.order
        graph = sources.graph
        fits = has_edges(graph) and graph.num_nodes == num_embeddings
        return "metis" if fits or self.edge_index is not None else "none"

    def make(
        self, name: str, num_embeddings: int, rows: tuple[int, ...], sources: OrderSources
    ) -> NodeOrder | None:
        """The order of a table's rows.

        Args:
            name: The table.
            num_embeddings: Its rows.
            rows: Factors of its rows.
            sources: What to make it of.

        Raises:
            ValueError: There is nothing to make it of, what there is does not fit the table, or
                an order by hand is that of another graph.
        """
        if isinstance(self.order, NodeOrder):
            self._check_graph(self.order, sources.graph)
            return self.order
        method = self.method(num_embeddings, sources)
        if method is None or method == "none":
            return None
        if method == "cooccurrence" or method == "frequency":
            return self._by_rows(name, num_embeddings, rows, sources.datamodule)
        edges = _NO_EDGES
        if method in BY_GRAPH:
            edges = self.edges(name, num_embeddings, sources, "ordered by a graph")
        return hierarchical_order(
            edges,
            num_embeddings,
            rows,
            method=method,
            seed=self.seed,
            cache_dir=self.cache_dir,
            progress=self.progress,
        )

    def edges(self, name: str, num_embeddings: int, sources: OrderSources, why: str) -> Tensor:
        """Edges between the rows of a table, int64 of shape ``(2, E)``.

        Args:
            name: The table.
            num_embeddings: Its rows.
            sources: Where a graph may be.
            why: What its rows are to be by the edges, for messages.

        Raises:
            ValueError: There is no graph, or one of another number of nodes.
        """
        if self.edge_index is not None:
            return self.edge_index
        graph = sources.graph
        if not has_edges(graph):
            have = "nothing" if graph is None else f"a {_kind(graph)}"
            raise ValueError(
                f"The rows of {name!r} are to be {why}, but the datamodule has {have} as its "
                f"attribute `data`, no torch_geometric.data.Data with edges: pass "
                f"Tensorize(edge_index=…), an order made before, or order='none'."
            )
        if graph.num_nodes != num_embeddings:
            raise ValueError(
                f"{name!r} has {num_embeddings} rows, the datamodule's graph {graph.num_nodes} "
                f"nodes: pass Tensorize(edge_index=…) with edges between the rows of the table, or "
                f"order='none'."
            )
        return edges_of(graph)

    def _by_rows(
        self, name: str, num_embeddings: int, rows: tuple[int, ...], datamodule: Any
    ) -> NodeOrder:
        field = self._field(name, num_embeddings, datamodule)
        # What was shown with what says who chose it; what is clicked with what, whom it suits.
        by_clicks = self.order == "cooccurrence"
        categories = rows_to_order_by(datamodule, self.seed, positive=by_clicks)
        if self.order == "frequency":
            return frequency_order(categories[:, field], num_embeddings, rows)
        return cooccurrence_order(
            categories,
            field,
            num_embeddings,
            rows,
            seed=self.seed,
            cache_dir=self.cache_dir,
            progress=self.progress,
        )

    def _field(self, name: str, num_embeddings: int, datamodule: Any) -> int:
        by_hand = "pass an order made before, or order='none'"
        if not isinstance(datamodule, TableDataModule):
            have = "none is there" if datamodule is None else f"it is a {_kind(datamodule)}"
            raise ValueError(
                f"The rows of {name!r} are to be ordered by {self.order}, which takes a datamodule "
                f"of rows, such as CriteoDataModule, and {have}: {by_hand}."
            )
        number = name.rpartition(".")[2]
        sizes = datamodule.num_embeddings
        if not number.isdigit() or int(number) >= len(sizes):
            raise ValueError(
                f"order={self.order!r}: the name of {name!r} does not end with the number of one "
                f"of the {len(sizes)} fields of {datamodule}: {by_hand}."
            )
        if sizes[int(number)] != num_embeddings:
            raise ValueError(
                f"order={self.order!r}: {name!r} has {num_embeddings} rows, and field {number} of "
                f"{datamodule} {sizes[int(number)]} categories: make the table for these data, or "
                f"{by_hand}."
            )
        return int(number)

    def _check_graph(self, order: NodeOrder, graph: Any) -> None:
        """Refuses the order of another graph, where both are known."""
        if order.graph_hash is None:
            return
        weights: list[Tensor | None] = [None]
        if self.edge_index is not None:
            edges, whose = self.edge_index, "edge_index"
        elif has_edges(graph) and graph.num_nodes == order.num_nodes:
            edges, whose = edges_of(graph), "the datamodule's graph"
            stored = (graph.get("edge_weight"), graph.get("edge_attr"))
            weights += [w for w in stored if isinstance(w, Tensor) and w.shape == edges[0].shape]
        else:
            return
        hashes = [graph_hash(edges, order.num_nodes, weight) for weight in weights]
        if order.graph_hash not in hashes:
            raise ValueError(
                f"order was made for the graph {order.graph_hash}, {whose} is {hashes[0]}: order "
                f"this one by hierarchical_order. If other edges between the same nodes are meant, "
                f"pass dataclasses.replace(order, graph_hash=None)."
            )


def has_edges(graph: Any) -> bool:
    """Whether it is a graph whose nodes are of one type."""
    return isinstance(graph, Data) and ("edge_index" in graph or "adj_t" in graph)


def edges_of(graph: Data) -> Tensor:
    """Edges of a graph that has some, int64 of shape ``(2, E)``."""
    if "edge_index" in graph:
        return graph.edge_index
    if isinstance(graph.adj_t, Tensor):
        return graph.adj_t.to_sparse_coo().indices().flip(0)
    target, source, _ = graph.adj_t.coo()  # of torch_sparse
    return torch.stack([source, target])


def rows_to_order_by(
    datamodule: TableDataModule, seed: int, max_rows: int = _MOST_ROWS, positive: bool = False
) -> Tensor:
    """Categories of rows to train on, read in bounded memory.

    Args:
        datamodule: Whose rows.
        seed: Seed of which are taken where there are more.
        max_rows: How many at most: one of each of so many equal stretches.
        positive: Whether those alone are taken whose label is 1; if there are none, all are.

    Returns:
        The category of each field, int64 of shape ``(n, F)``.
    """
    rows, pieces = datamodule.rows, _pieces(datamodule.split.train)
    label = rows.label if positive else None
    counts = [_count(piece, label) for piece in pieces]
    if positive and not any(counts):
        return rows_to_order_by(datamodule, seed, max_rows)
    kept = _spread(sum(counts), max_rows, np.random.default_rng(seed))
    found, first = [], 0
    for piece, count in zip(pieces, counts, strict=True):
        low, high = np.searchsorted(kept, (first, first + count))
        if low < high:
            own = _numbers(piece, label)[kept[low:high] - first]
            found.append(np.asarray(rows.sparse[own], np.int64))
        first += count
    return torch.from_numpy(np.concatenate(found))


def _pieces(rows: slice | np.ndarray) -> list[slice | np.ndarray]:
    """Rows, a piece after the other: labels of all would be too many for the memory."""
    if isinstance(rows, slice):
        firsts = range(rows.start, rows.stop, _PIECE)
        return [slice(first, min(first + _PIECE, rows.stop)) for first in firsts]
    return [rows[first : first + _PIECE] for first in range(0, len(rows), _PIECE)]


def _count(piece: slice | np.ndarray, label: np.ndarray | None) -> int:
    """How many rows it has; with ``label``, how many that are positive."""
    if label is not None:
        return int(np.count_nonzero(label[piece]))
    return piece.stop - piece.start if isinstance(piece, slice) else len(piece)


def _numbers(piece: slice | np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """Which rows these are."""
    numbers = np.arange(piece.start, piece.stop) if isinstance(piece, slice) else piece
    return numbers if label is None else numbers[label[piece] > 0]


def _spread(count: int, at_most: int, random: np.random.Generator) -> np.ndarray:
    """One of each of ``at_most`` equal stretches of as many numbers; all if there are fewer."""
    ends = np.arange(min(count, at_most) + 1) * count // max(1, min(count, at_most))
    stretch = np.diff(ends)
    return ends[:-1] + (random.random(len(stretch)) * stretch).astype(np.int64)


def _kind(value: Any) -> str:
    return type(value).__name__
