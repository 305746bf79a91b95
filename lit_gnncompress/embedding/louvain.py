"""Communities of a graph by Louvain, level after level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lit_gnncompress.embedding.adjacency import Adjacency

Array = NDArray[np.int64]


def communities(graph: Adjacency, seed: int) -> list[Array]:
    """The communities of each node, from the smallest to the largest.

    Nodes move to the neighbouring community that raises the modularity most, until none wants to;
    then communities become nodes, and so on (Blondel, Guillaume, Lambiotte, Lefebvre: Fast
    unfolding of communities in large networks, 2008). The number of communities is not chosen.

    Args:
        graph: The graph.
        seed: Seed of the order in which nodes move.

    Returns:
        Community of each node, shape ``(N,)``, for each level.
    """
    from lit_gnncompress.embedding.louvain_loops import move_nodes

    random = np.random.default_rng(seed)
    weight = graph.weight if len(graph.weight) else np.ones(len(graph.neighbor), np.int64)
    size = (graph.num_nodes, graph.num_nodes)
    matrix = sparse.csr_matrix((weight.astype(np.float64), graph.neighbor, graph.start), size)
    member = np.arange(graph.num_nodes)
    levels: list[Array] = []
    while matrix.nnz:
        count = matrix.shape[0]
        community = np.arange(count)
        strength = np.asarray(matrix.sum(1)).ravel()
        order = random.permutation(count)
        move_nodes(matrix.indptr, matrix.indices, matrix.data, strength, order, community)
        names, community = np.unique(community, return_inverse=True)
        if len(names) == count:
            break
        member = community[member]
        levels.append(member)
        to = sparse.csr_matrix((np.ones(count), (np.arange(count), community)))
        matrix = (to.T @ matrix @ to).tocsr()
    return levels
