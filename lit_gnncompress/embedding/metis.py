"""Graphs cut by METIS, level after level, into parts that none overflows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_gnncompress.embedding.adjacency import Adjacency
from lit_gnncompress.embedding.coarse import Clusters

Array = NDArray[np.int64]

_MOST_PARTS = 2048  # of one cut: beyond, METIS hardly coarsens, so that time and memory explode
_MOST_RECURSIVE = 8  # parts that METIS finds best by halving
_MOST_ENTRIES = 2**25  # of a graph that METIS cuts as it is: it takes 80 bytes and more for each
_MOST_TOLERANCE = 0.1  # with more, METIS finds worse cuts
_FLAT_TOLERANCE = 0.03  # what METIS itself allows


@dataclass(frozen=True)
class Block:
    """A part of a graph that is to be cut.

    Attributes:
        graph: The graph inside it.
        kind: Kind of each node, int64, shape ``(N,)``.
        parts: How many parts of this level it consists of.
        deeper: How many parts each of those is cut into, level after level.
        places: Nodes of each kind that a part of the last level has room for.
        key: Seed, and the way here: every block draws its own random numbers, so that results do
            not depend on which process cuts it.
    """

    graph: Adjacency
    kind: Array
    parts: int
    deeper: tuple[int, ...]
    places: tuple[int, ...]
    key: tuple[int, ...]

    @property
    def shares(self) -> Array:
        """How many parts of this level each part of its next cut consists of."""
        cuts = _cuts(self.parts)
        count = math.ceil(round(self.parts ** (1 / cuts), 6)) if cuts else 1
        ends = np.linspace(0, self.parts, count + 1).round().astype(np.int64)
        return ends[1:] - ends[:-1]

    def cut(self) -> Array:
        """One cut: the part of each node, in which there is room for it."""
        shares, num_nodes = self.shares, self.graph.num_nodes
        if len(shares) == 1 or num_nodes == 0:
            return np.zeros(num_nodes, np.int64)
        random = np.random.Generator(np.random.PCG64(self.key))
        capacity = np.outer(self.places, shares) * math.prod(self.deeper)
        part = np.full(num_nodes, -1)
        linked = self.graph.degree > 0
        if linked.any():
            nodes, graph = np.arange(num_nodes), self.graph
            if not linked.all():
                nodes, graph = graph.split(np.where(linked, 0, 1), 2)[0]
            kind = self.kind[nodes]
            found = self._metis(graph, kind, shares, capacity, random)
            room = capacity - _count(kind, found, capacity.shape)
            if (room < 0).any():
                from lit_gnncompress.embedding.part_loops import relieve

                order = random.permutation(len(nodes))
                relieve(graph.start, graph.neighbor, graph.weight, kind, found, room, order)
            part[nodes] = found
        self._fill(part, capacity, random)
        return part

    def _metis(
        self,
        graph: Adjacency,
        kind: Array,
        shares: Array,
        capacity: Array,
        random: np.random.Generator,
    ) -> Array:
        """Parts of about equal size with few edges between them."""
        if graph.num_nodes <= len(shares):
            return np.arange(graph.num_nodes)
        present = np.bincount(kind, minlength=len(capacity))
        # Free places are for all levels to come, too: none may use them up.
        spare = (capacity.sum(1)[present > 0] / present[present > 0]).min()
        tolerance = min(spare ** (1 / self.num_cuts) - 1, _MOST_TOLERANCE)
        size = np.ones(graph.num_nodes)
        if len(capacity) > 1:  # each kind fills an equal share of a part
            size = (present.max() / present.clip(1))[kind]
        seed = int(random.integers(2**31 - 1))
        if len(graph.neighbor) <= _MOST_ENTRIES:
            return _part_graph(graph, size, shares, tolerance, seed)
        from lit_gnncompress.embedding.part_loops import attract

        small = Clusters.of(graph, len(shares), random)
        sizes = np.bincount(small.cluster, weights=size).astype(np.float64)
        found = _part_graph(small.graph, sizes, shares, tolerance, seed)[small.cluster]
        most = np.outer(present, shares / shares.sum() * (1 + tolerance))
        room = np.minimum(most.astype(np.int64), capacity) - _count(kind, found, capacity.shape)
        order = random.permutation(graph.num_nodes)
        attract(graph.start, graph.neighbor, graph.weight, kind, found, room, order)
        return found

    def _fill(self, part: Array, capacity: Array, random: np.random.Generator) -> None:
        """Puts nodes without neighbours where most is free, in random order."""
        left = (part < 0).nonzero()[0]
        if not len(left):
            return
        left = random.permutation(left)
        there = part >= 0
        room = capacity - _count(self.kind[there], part[there], capacity.shape)
        for kind in np.unique(self.kind[left]):
            mine = left[self.kind[left] == kind]
            parts = np.repeat(np.arange(capacity.shape[1]), room[kind])
            nth = np.arange(len(parts)) - np.repeat(room[kind].cumsum() - room[kind], room[kind])
            taken = capacity[kind] - room[kind]
            full = (nth + taken[parts] + 0.5) / capacity[kind][parts]
            part[mine] = parts[np.argsort(full, kind="stable")[: len(mine)]]

    @property
    def num_cuts(self) -> int:
        """Cuts from here to the parts of the last level."""
        return max(1, _cuts(self.parts) + sum(map(_cuts, self.deeper)))

    def children(self, part: Array, folder: Path | None = None) -> list[tuple[Array, int, Block]]:
        """The parts of a cut that have nodes: those, number of the first leaf, what is left.

        Args:
            part: What :meth:`cut` found.
            folder: See :meth:`Adjacency.split`.
        """
        shares, inner = self.shares, math.prod(self.deeper)
        leaf = (np.cumsum(shares) - shares) * inner
        out = []
        for i, (nodes, graph) in enumerate(self.graph.split(part, len(shares), folder)):
            if not len(nodes):
                continue
            parts, deeper = int(shares[i]), self.deeper
            if parts == 1 and deeper:
                parts, deeper = deeper[0], deeper[1:]
            key = (*self.key, i)
            block = Block(graph, self.kind[nodes], parts, deeper, self.places, key)
            out.append((nodes, int(leaf[i]), block))
        return out

    def leaves(self) -> Array:
        """The part of the last level that each node is in, from 0."""
        part = self.cut()
        if self.num_cuts == 1:
            return part
        leaf = np.empty_like(part)
        for nodes, first, block in self.children(part):
            leaf[nodes] = first + block.leaves()
        return leaf


def first_block(
    graph: Adjacency, kind: Array, levels: Sequence[int], places: Sequence[int], seed: int
) -> Block:
    """The whole graph, not cut yet; see :class:`Block`."""
    levels = [p for p in levels if p > 1] or [1]
    return Block(graph, kind, levels[0], tuple(levels[1:]), tuple(places), (seed,))


def exchanged(block: Block, leaf: Array, random: np.random.Generator) -> Array:
    """Better leaves: nodes that gain by it change places, over the borders of all parts.

    A part that METIS cuts does not know of the neighbours outside, and the least attached nodes of
    parts that were too full went where there was room.

    Args:
        block: The whole graph.
        leaf: Part of the last level of each node.
        random: Draws the order in which nodes are asked.
    """
    from lit_gnncompress.embedding.part_loops import exchange

    levels = np.array([block.parts, *block.deeper], np.int64)
    spans = levels[::-1].cumprod()[::-1] // levels
    num_leaves, size = int(levels.prod()), np.array(block.places, np.int64)
    first = np.concatenate([[0], np.cumsum(size * num_leaves)])
    held = np.full(first[-1], -1)
    row = leaf + block.kind * num_leaves
    nodes = np.argsort(row, kind="stable")
    count = np.bincount(row, minlength=num_leaves * len(size))
    nth = np.arange(len(row)) - np.repeat(count.cumsum() - count, count)
    held[(first[block.kind] + leaf * size[block.kind])[nodes] + nth] = nodes
    leaf = leaf.copy()
    graph, order = block.graph, random.permutation(len(leaf))
    exchange(
        graph.start, graph.neighbor, graph.weight, block.kind, leaf, held, first, size, spans, order
    )
    return leaf


def flat_parts(graph: Adjacency, num_parts: int, seed: int) -> Array:
    """One cut into all parts, as METIS makes it: their sizes differ by a few percent."""
    if graph.num_nodes <= num_parts:
        return np.arange(graph.num_nodes)
    shares = np.ones(num_parts, np.int64)
    return _part_graph(graph, np.ones(graph.num_nodes), shares, _FLAT_TOLERANCE, seed)


def _part_graph(
    graph: Adjacency, size: NDArray[np.float64], shares: Array, tolerance: float, seed: int
) -> Array:
    """METIS: parts of sizes as ``shares``, up to ``tolerance``, with few edges between them."""
    pymetis = import_pymetis()
    options = pymetis.Options(seed=seed, ufactor=max(1, int(1000 * tolerance)))
    found = pymetis.part_graph(
        len(shares),
        pymetis.CSRAdjacency(graph.start, graph.neighbor),
        vweights=np.rint(1000 * size).astype(np.int64) if np.ptp(size) else None,
        eweights=graph.weight if len(graph.weight) else None,
        tpwgts=(shares / shares.sum()).tolist() if np.ptp(shares) else None,
        recursive=len(shares) <= _MOST_RECURSIVE,
        options=options,
    )
    return np.array(found.vertex_part, dtype=np.int64)


def import_pymetis() -> Any:
    """The binding of METIS.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import pymetis
    except ImportError as error:
        raise ImportError(
            "Orders by METIS need pymetis: `pip install pymetis`, or choose method='community'."
        ) from error
    return pymetis


def _cuts(parts: int) -> int:
    """Cuts until there are so many parts."""
    cuts = 0
    while parts > _MOST_PARTS**cuts:
        cuts += 1
    return cuts


def _count(kind: Array, part: Array, shape: tuple[int, ...]) -> Array:
    """Nodes of each kind in each part."""
    flat = np.bincount(kind * shape[1] + part, minlength=shape[0] * shape[1])
    return flat.reshape(shape)
