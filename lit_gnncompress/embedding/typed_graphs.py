"""Graphs of several types of nodes as one, and factors that their tables can share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_gnncompress.embedding.factors import graph_rows
from lit_gnncompress.embedding.graph_hash import check_graph, graph_hash
from lit_gnncompress.embedding.node_order import check_rows

EdgeType = tuple[str, str, str]


@dataclass(frozen=True)
class TypedGraph:
    """A graph whose nodes are numbered type after type.

    Attributes:
        edge_index: Ends of edges, shape ``(2, E)``.
        edge_weight: Weight of each edge, shape ``(E,)``, or ``None``.
        num_nodes: Nodes of each type.
        rows: Factors of the table of each type.
    """

    edge_index: Tensor
    edge_weight: Tensor | None
    num_nodes: dict[str, int]
    rows: dict[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Nodes of all types."""
        return sum(self.num_nodes.values())

    def fingerprint(self) -> str:
        """Its :func:`~lit_gnncompress.embedding.graph_hash.graph_hash`."""
        return graph_hash(self.edge_index, self.size, self.edge_weight)

    @classmethod
    def single(
        cls, edge_index: Any, num_nodes: Any, rows: Any, edge_weight: Any = None
    ) -> TypedGraph:
        """A graph of one type, which has no name.

        Raises:
            ValueError: See :func:`~lit_gnncompress.embedding.hierarchical_order`.
        """
        check_graph(edge_index, num_nodes, edge_weight)
        rows = check_rows(rows)
        _check_room("", num_nodes, rows)
        return cls(edge_index, edge_weight, {"": num_nodes}, {"": rows})

    @classmethod
    def joined(
        cls, edge_index: Any, num_nodes: Any, rows: Any, edge_weight: Any = None
    ) -> TypedGraph:
        """A graph of several types; arguments by type.

        Raises:
            ValueError: See :func:`~lit_gnncompress.embedding.hierarchical_order`.
        """
        if not isinstance(num_nodes, Mapping) or not isinstance(rows, Mapping):
            raise ValueError(
                "num_nodes and rows must be dictionaries by type of nodes, as edge_index is one."
            )
        _check_names("rows", rows, num_nodes)
        if edge_weight is not None:
            _check_names("edge_weight", edge_weight, edge_index)
        factors = {name: check_rows(rows[name]) for name in num_nodes}
        if len({checked[:-1] for checked in factors.values()}) > 1:
            raise ValueError(
                f"rows={factors}: all types are cut together, so that only their last factors may "
                f"differ. rows={typed_rows(num_nodes)} would do."
            )
        first, ends, weights = {}, [], []
        total = 0
        for name, count in num_nodes.items():
            _check_room(name, count, factors[name])
            first[name] = total
            total += count
        for (source, relation, target), index in edge_index.items():
            _check_names("num_nodes", num_nodes, (source, target), more=True)
            weight = None if edge_weight is None else edge_weight[source, relation, target]
            try:
                check_graph(index, (num_nodes[source], num_nodes[target]), weight)
            except (ValueError, IndexError) as error:
                raise type(error)(f"edges {(source, relation, target)}: {error}") from None
            shift = index.new_tensor([[first[source]], [first[target]]], dtype=torch.int64)
            ends.append(index + shift)
            if weight is not None:
                weights.append(weight.double())
        joined = torch.cat(ends, 1) if ends else torch.empty(2, 0, dtype=torch.int64)
        weight = torch.cat(weights) if weights else None
        return cls(joined, weight, dict(num_nodes), factors)


def typed_rows(
    num_nodes: Mapping[str, int], num_factors: int = 3, part_size: int = 50, padding: float = 0.05
) -> dict[str, tuple[int, ...]]:
    """Factors for the tables of several types of nodes that are ordered together.

    They differ in the last factor alone, so that parts of the same number belong together.

    Args:
        num_nodes: Nodes of each type.
        num_factors: How many factors, 2 to 4.
        part_size: Nodes of a part of the first level, of all types together.
        padding: Free places to have, as a share of the nodes of each type.

    Returns:
        Factors for each type.

    Raises:
        ValueError: Numbers below 1, more factors than 4, or a negative padding.

    Example:
        >>> typed_rows({"user": 29_858, "item": 40_981})
        {'user': (1417, 6, 4), 'item': (1417, 6, 6)}
    """
    leading = graph_rows(sum(num_nodes.values()), num_factors, part_size, padding)[:-1]
    parts = math.prod(leading)
    return {
        name: (*leading, math.ceil(count * (1 + padding) / parts))
        for name, count in num_nodes.items()
    }


def _check_room(name: str, num_nodes: int, rows: Sequence[int]) -> None:
    room = math.prod(rows)
    if room >= num_nodes:
        return
    parts = math.prod(rows[:-1])
    larger = (*rows[:-1], -(-num_nodes * 21 // (parts * 20)))
    of = f" of type {name!r}" if name else ""
    raise ValueError(
        f"rows={tuple(rows)} have room for {room:,} nodes{of}, {num_nodes - room:,} too few for "
        f"num_nodes={num_nodes:,}: rows={larger} have some to spare, as an order wants them."
    )


def _check_names(
    what: str, given: Mapping[Any, Any], wanted: Iterable[Any], more: bool = False
) -> None:
    """Refuses a dictionary that lacks keys, or without ``more`` has others."""
    missing = [key for key in wanted if key not in given]
    others = [] if more else [key for key in given if key not in set(wanted)]
    if missing or others:
        lacks = f"lacks {missing}" if missing else f"has {others} which there are not"
        raise ValueError(f"{what} has the keys {list(given)}: it {lacks}.")
