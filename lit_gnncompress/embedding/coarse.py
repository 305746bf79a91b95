"""Graphs too large for METIS, made small: clusters become nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lit_gnncompress.embedding.adjacency import Adjacency

Array = NDArray[np.int64]

_MOST_NODES = 256  # of a cluster
_CLUSTERS = 16  # of a part, at least: fewer do not let parts be of equal size


@dataclass(frozen=True)
class Clusters:
    """Nodes that belong together, as the nodes of a smaller graph.

    METIS keeps a copy of the graph for each time that it halves the nodes, and halving them leaves
    most edges of a graph of many edges a node. Clusters of many nodes have far fewer edges
    (`Meyerhenke, Sanders, Schulz 2014 <https://doi.org/10.1007/978-3-319-07959-2_30>`_).

    Attributes:
        graph: Clusters and the sums of the edges between them.
        cluster: Of each node.
    """

    graph: Adjacency
    cluster: Array

    @classmethod
    def of(cls, graph: Adjacency, num_parts: int, random: np.random.Generator) -> Clusters:
        """Clusters by label propagation, those of few neighbours first.

        Args:
            graph: The graph.
            num_parts: Parts that it is to be cut into.
            random: Draws the order among nodes of the same degree.
        """
        from lit_gnncompress.embedding.coarse_loops import contract
        from lit_gnncompress.embedding.part_loops import attract

        count = graph.num_nodes
        most = max(1, min(_MOST_NODES, count // (num_parts * _CLUSTERS)))
        order = random.permutation(count)
        order = order[np.argsort(graph.degree[order], kind="stable")]
        cluster, room = np.arange(count), np.full((1, count), most - 1)
        one_kind = np.zeros(count, np.int64)
        rows = (graph.start, graph.neighbor, graph.weight)
        attract(*rows, one_kind, cluster, room, order)
        names, cluster = np.unique(cluster, return_inverse=True)
        node = np.argsort(cluster, kind="stable")
        first = np.concatenate([[0], np.bincount(cluster).cumsum()])
        start = np.zeros(len(names) + 1, np.int64)
        out = weight = np.empty(0, np.int64)
        contract(*rows, cluster, node, first, start, out, weight)
        out, weight = np.empty(start[-1], np.int64), np.empty(start[-1], np.int64)
        contract(*rows, cluster, node, first, start, out, weight)
        return cls(Adjacency(start, out, weight), cluster)
