"""Where nodes lie in a table whose row numbers have digits."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lit_gnncompress.files import replacing

_KIND = "lit_gnncompress.NodeOrder"


@dataclass(frozen=True, eq=False)
class NodeOrder:
    """The place of each node in a padded table, and the parts that it is in.

    A place ``i`` has the digits ``i = (i_1 * p_2 + i_2) * p_3 + i_3``. Nodes that agree in the
    first ``l`` digits are in the same part of level ``l``.

    Args:
        rows: Factors ``p_1 … p_d`` of the table's rows.
        place: Place of each node, int64 of shape ``(num_nodes,)``, no two the same, each below
            :attr:`capacity`.
        method: How it was found.
        graph_hash: Hash of the graph that it was made for; ``None`` if it is not known.

    Raises:
        TypeError: ``place`` is not an int64 tensor.
        ValueError: Factors below 1, a place outside of the table, or one that is taken twice.

    Example:
        >>> order = NodeOrder(rows=(2, 3), place=torch.tensor([4, 0, 3]), method="by hand")
        >>> order.parts(1)
        tensor([1, 0, 1])
        >>> order.node
        tensor([ 1, -1, -1,  2,  0, -1])
    """

    rows: tuple[int, ...]
    place: Tensor
    method: str
    graph_hash: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", check_rows(self.rows))
        place = self.place
        if not isinstance(place, Tensor) or place.dtype != torch.int64 or place.dim() != 1:
            raise TypeError(
                f"place must be an int64 tensor of shape (num_nodes,), got "
                f"{_describe(place)}: call .long() on it."
            )
        wrong = ((place < 0) | (place >= self.capacity)).nonzero()
        if len(wrong):
            node = int(wrong[0])
            raise ValueError(
                f"place[{node}]={int(place[node])} is outside of the table: rows={self.rows} have "
                f"{self.capacity:,} places, counted from 0."
            )
        count = torch.bincount(place, minlength=self.capacity)
        if bool((count > 1).any()):
            taken = int(count.argmax())
            nodes = (place == taken).nonzero().flatten().tolist()
            raise ValueError(
                f"place={taken} is taken by the nodes {nodes[:3]}: give each node a place of its "
                f"own."
            )

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return self.place.numel()

    @property
    def capacity(self) -> int:
        """Number of places."""
        return math.prod(self.rows)

    @property
    def num_levels(self) -> int:
        """Number of levels with parts: one less than there are factors."""
        return len(self.rows) - 1

    @property
    def node(self) -> Tensor:
        """The node in each place, int64 of shape ``(capacity,)``; -1 where it is free."""
        node = self.place.new_full((self.capacity,), -1)
        node[self.place] = torch.arange(self.num_nodes, device=self.place.device)
        return node

    def num_parts(self, level: int) -> int:
        """Number of parts of a level, ``p_1 * … * p_level``.

        Raises:
            ValueError: A level that the factors do not have.
        """
        self._check_level(level)
        return math.prod(self.rows[:level])

    def parts(self, level: int) -> Tensor:
        """The part of each node, int64 of shape ``(num_nodes,)``, below ``num_parts(level)``.

        Args:
            level: From 1, the coarsest, to ``len(rows) - 1``.

        Raises:
            ValueError: A level that the factors do not have.
        """
        self._check_level(level)
        return self.place // math.prod(self.rows[level:])

    def _check_level(self, level: int) -> None:
        if not 1 <= level <= self.num_levels:
            raise ValueError(
                f"level={level} must lie in [1, {self.num_levels}]: rows={self.rows} have no other "
                f"parts."
            )

    def assign(
        self,
        edge_index: Tensor,
        num_new: int,
        *,
        edge_weight: Tensor | None = None,
    ) -> NodeOrder:
        """Gives new nodes free places in the parts of most of their neighbours.

        The nodes that are there keep their places. See
        :func:`lit_gnncompress.embedding.new_nodes.places_of_new`.

        Args:
            edge_index: Edges with an end that is new, int64 or int32 of shape ``(2, E)``, in either
                direction. Nodes count on: the new ones are ``num_nodes … num_nodes + num_new - 1``.
                Edges between known nodes change nothing.
            num_new: Number of new nodes.
            edge_weight: Weight of each edge, at least 0, shape ``(E,)``; 1 each if ``None``.

        Returns:
            An order of all nodes, the known ones first. Its ``graph_hash`` is ``None``.

        Raises:
            ValueError: More new nodes than free places, or edges or weights that are not valid.
            IndexError: An edge of a node that there is not.
        """
        from lit_gnncompress.embedding.new_nodes import places_of_new

        place = places_of_new(self, edge_index, num_new, edge_weight)
        return replace(self, place=torch.cat([self.place, place]), graph_hash=None)

    def check_graph(
        self, edge_index: Tensor, edge_weight: Tensor | None = None, num_nodes: int | None = None
    ) -> None:
        """Refuses an order that was made for another graph.

        Args:
            edge_index: Edges, in any order, each in the directions that it had then.
            edge_weight: Their weights, if they had some.
            num_nodes: Number of nodes of the graph; :attr:`num_nodes` if ``None``.

        Raises:
            ValueError: The graph is another one, or the order does not know its own.
        """
        from lit_gnncompress.embedding.graph_hash import check_graph, graph_hash

        size = self.num_nodes if num_nodes is None else num_nodes
        check_graph(edge_index, size, edge_weight)
        found = graph_hash(edge_index, size, edge_weight)
        if size != self.num_nodes or found != self.graph_hash:
            raise ValueError(
                f"The order was made for {self.num_nodes:,} nodes and graph_hash="
                f"{self.graph_hash!r}, the graph has {size:,} and {found!r}: order this one by "
                f"hierarchical_order."
            )

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file with the places; the rest is JSON in its header.

        The header also has a checksum of both.

        Args:
            path: The file; one that is there is replaced when the new one is complete.
        """
        about = {"rows": self.rows, "method": self.method, "graph_hash": self.graph_hash}
        text = json.dumps(about)
        place = self.place.detach().cpu().contiguous()
        metadata = {"kind": _KIND, "order": text, "digest": _digest(text, place)}
        with replacing(path) as unfinished:
            save_file({"place": place}, unfinished, metadata)

    @classmethod
    def load(cls, path: str | Path) -> NodeOrder:
        """Reads what :meth:`save` wrote.

        Args:
            path: The file.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It is damaged, or holds something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"path={str(path)!r}: there is no such file.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("kind") != _KIND:
                    raise ValueError("it holds no NodeOrder")
                about, place = json.loads(metadata["order"]), file.get_tensor("place")
                if _digest(metadata["order"], place) != metadata.get("digest"):
                    raise ValueError("it is damaged, its checksum is another: make the order anew")
                return cls(
                    rows=tuple(about["rows"]),
                    place=place,
                    method=about["method"],
                    graph_hash=about["graph_hash"],
                )
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not an order that can be read: {error}.") from error


def check_rows(rows: Sequence[int]) -> tuple[int, ...]:
    """The factors as a tuple.

    Raises:
        ValueError: None, or one below 1.
    """
    given = tuple(rows)
    if not given or any(not isinstance(p, Integral) or isinstance(p, bool) or p < 1 for p in given):
        raise ValueError(f"rows={given} must be whole numbers from 1 on.")
    return tuple(map(int, given))


def _digest(text: str, place: Tensor) -> str:
    hashed = hashlib.blake2b(text.encode(), digest_size=16)
    hashed.update(place.numpy().tobytes())
    return hashed.hexdigest()


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__
