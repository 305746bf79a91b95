"""Undirected graphs as rows of neighbours, and the graphs inside their parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # processes that cut parts do without torch
    from torch import Tensor

Array = NDArray[np.int64]

_HEAVIEST = 2**24  # of the whole weights that METIS wants


@dataclass(frozen=True)
class Adjacency:
    """An undirected graph: both ends of an edge have it, no loops, each edge once.

    Attributes:
        start: Where the row of each node begins, int64, shape ``(N + 1,)``.
        neighbor: Other ends, int64, sorted in each row.
        weight: Weights of the edges, int64, at least 1; empty where all are equal.
    """

    start: Array
    neighbor: Array
    weight: Array

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.start) - 1

    @property
    def degree(self) -> Array:
        """Number of neighbours of each node."""
        return np.diff(self.start)

    @classmethod
    def of(
        cls,
        edge_index: Tensor,
        num_nodes: int,
        edge_weight: Tensor | None = None,
        folder: Path | None = None,
    ) -> Adjacency:
        """The graph of some edges, whichever way they point.

        Args:
            edge_index: Ends of edges, shape ``(2, E)``; edges may occur twice and both ways.
            num_nodes: Number of nodes, below ``2 ** 31``.
            edge_weight: Weight of each edge, at least 0, shape ``(E,)``; those of the same two
                nodes are added up, and an edge of weight 0 is none. Whole numbers are made of
                them, the largest ``2 ** 24``. All equal if ``None``, however often an edge occurs.
            folder: Where neighbours lie in a file, which other processes can share; in memory if
                ``None``.
        """
        from lit_gnncompress.embedding import graph_loops

        source, target = edge_index.detach().cpu().numpy()
        given = np.empty(0, np.float64)
        if edge_weight is not None:
            given = edge_weight.detach().cpu().double().numpy()
            there = given > 0
            if not there.all():
                source, target, given = source[there], target[there], given[there]
        start = np.zeros(num_nodes + 1, np.int64)
        graph_loops.count_neighbors(source, target, start)
        entries, weighted = int(start[-1]), edge_weight is not None
        neighbor = np.empty(entries, np.int32)
        strength = np.empty(entries if weighted else 0, np.float64)
        graph_loops.fill_neighbors(source, target, given, start[:-1].copy(), neighbor, strength)
        end, merged, total = start[:-1].copy(), np.empty_like(neighbor), np.empty_like(strength)
        graph_loops.transpose_and_merge(start, neighbor, strength, end, merged, total)
        del neighbor, strength
        packed = np.zeros_like(start)
        np.cumsum(end - start[:-1], out=packed[1:])
        out = _empty(packed[-1], folder)
        weights = np.empty(len(out) if weighted else 0, np.float64)
        graph_loops.close_gaps(start, end, merged, total, packed, out, weights)
        whole = _empty(len(weights), folder)
        if len(weights):
            weights *= _HEAVIEST / weights.max()
            np.maximum(np.rint(weights, out=weights), 1, out=whole, casting="unsafe")
        return cls(packed, out, whole)

    def split(self, part: Array, num_parts: int, folder: Path | None = None) -> Parts:
        """The graphs inside some parts.

        Args:
            part: Of each node, below ``num_parts``.
            num_parts: Number of parts; some may be empty.
            folder: See :meth:`of`.
        """
        from lit_gnncompress.embedding import graph_loops

        node = np.argsort(part, kind="stable")
        rank = np.empty_like(node)
        rank[node] = np.arange(len(node))
        first = np.zeros(num_parts + 1, np.int64)
        np.cumsum(np.bincount(part, minlength=num_parts), out=first[1:])
        start = np.zeros_like(self.start)
        graph_loops.count_inner(self.start, self.neighbor, part, node, start)
        out = _empty(start[-1], folder)
        weight = _empty(len(out) if len(self.weight) else 0, folder)
        graph_loops.fill_inner(
            self.start, self.neighbor, self.weight, part, node, rank, first, out, weight
        )
        return Parts(node, first, Adjacency(start, out, weight))


@dataclass(frozen=True)
class Parts:
    """The graphs inside the parts of a graph.

    Attributes:
        node: The nodes by part, shape ``(N,)``.
        first: Where each part begins among them, shape ``(num_parts + 1,)``.
        inner: Their rows one behind the other, ends numbered from 0 in each part.
    """

    node: Array
    first: Array
    inner: Adjacency

    def __iter__(self) -> Iterator[tuple[Array, Adjacency]]:
        for part in range(len(self.first) - 1):
            yield self[part]

    def __getitem__(self, part: int) -> tuple[Array, Adjacency]:
        """Nodes of a part, and the graph inside it; nothing is copied but where rows begin."""
        begin, end = self.first[part], self.first[part + 1]
        start = self.inner.start[begin : end + 1]
        slots = slice(start[0], start[-1])
        weight = self.inner.weight[slots]
        return self.node[begin:end], Adjacency(start - start[0], self.inner.neighbor[slots], weight)


def _empty(size: int, folder: Path | None) -> Array:
    if folder is None or size == 0:
        return np.empty(size, np.int64)
    with NamedTemporaryFile(dir=folder, delete=False) as file:
        return np.asarray(np.memmap(file, np.int64, "w+", shape=(int(size),)))
