"""Clusters as nodes: what is between them adds up."""

import numpy as np
import pytest
import torch

from lit_gnncompress.embedding.adjacency import Adjacency
from lit_gnncompress.embedding.coarse import Clusters
from tests.embedding.graphs import cliques, random_edges


@pytest.mark.parametrize("weighted", [False, True])
def test_weights_between_clusters_are_sums(weighted):
    edges = random_edges(300, 2000)
    graph = Adjacency.of(edges, 300, torch.rand(2000) if weighted else None)
    small = Clusters.of(graph, 3, np.random.default_rng(0))
    count = small.graph.num_nodes
    source = small.cluster[np.repeat(np.arange(300), graph.degree)]
    target = small.cluster[graph.neighbor]
    dense = np.zeros((count, count), np.int64)
    np.add.at(dense, (source, target), graph.weight if weighted else 1)
    np.fill_diagonal(dense, 0)
    found = np.zeros_like(dense)
    row = np.repeat(np.arange(count), small.graph.degree)
    found[row, small.graph.neighbor] = small.graph.weight
    assert (found == dense).all()
    assert 1 < count < 300
    assert np.bincount(small.cluster).max() <= 300 // (3 * 16)


def test_cliques_are_clusters():
    graph = Adjacency.of(cliques(64, 5), 320)
    small = Clusters.of(graph, 4, np.random.default_rng(0))
    assert (small.graph.num_nodes, len(small.graph.neighbor)) == (64, 0)
