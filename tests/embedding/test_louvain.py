"""Communities: each level joins those of the one before, and finds what is there."""

import itertools

import numpy as np
import pytest
import torch

from lit_gnncompress.embedding.adjacency import Adjacency
from lit_gnncompress.embedding.louvain import communities
from tests.embedding.graphs import cliques, grid


def test_cliques_in_a_chain_are_found():
    chain = torch.stack([torch.arange(0, 54, 6), torch.arange(6, 60, 6)])
    graph = Adjacency.of(torch.cat([cliques(10, 6), chain], 1), 60)
    first = communities(graph, seed=0)[0]
    assert len(np.unique(first)) == 10
    assert all(len(set(first[clique : clique + 6])) == 1 for clique in range(0, 60, 6))


def test_levels_are_nested_and_few():
    levels = communities(Adjacency.of(grid(30), 900), seed=0)
    counts = [len(np.unique(level)) for level in levels]
    assert counts == sorted(counts, reverse=True)
    assert 900 > counts[0] > counts[-1] > 1
    for fine, coarse in itertools.pairwise(levels):
        assert len(np.unique(np.stack([fine, coarse]), axis=1)[0]) == len(np.unique(fine))


@pytest.mark.parametrize("num_edges", [0, 1])
def test_graphs_of_nearly_nothing(num_edges):
    edges = torch.tensor([[0], [1]])[:, :num_edges]
    levels = communities(Adjacency.of(edges, 4), seed=0)
    assert len(levels) == num_edges
