"""Nodes that move between parts, against what they should do by hand."""

import numpy as np
import pytest
import torch

from lit_gnncompress.embedding.adjacency import Adjacency
from lit_gnncompress.embedding.part_loops import attract, exchange, relieve
from tests.embedding.graphs import random_edges


def rows_of(graph):
    return graph.start, graph.neighbor, graph.weight


def test_the_least_attached_node_leaves_for_the_part_of_most_neighbours():
    # Part 0 has room for one less: 0, 1, 2 are a triangle, 3 hangs on 2 by one edge and on 4, 5
    # of part 1; part 2 has more room, but none of its neighbours.
    edges = torch.tensor([[0, 1, 0, 2, 3, 3], [1, 2, 2, 3, 4, 5]])
    graph = Adjacency.of(edges, 7)
    part, room = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([[-1, 1, 5]])
    kind, order = np.zeros(7, np.int64), np.arange(7)
    relieve(graph.start, graph.neighbor, graph.weight, kind, part, room, order)
    assert part.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert room.tolist() == [[0, 0, 5]]


def test_without_near_room_a_node_goes_where_most_is():
    graph = Adjacency.of(torch.tensor([[0, 1], [1, 2]]), 4)
    part, room = np.array([0, 0, 0, 2]), np.array([[-1, 0, 1, 4]])
    relieve(
        graph.start, graph.neighbor, graph.weight, np.zeros(4, np.int64), part, room, np.arange(4)
    )
    assert sorted(part.tolist()) == [0, 0, 2, 3]


def agreeing(graph, leaf, spans):
    """Twice the weight of the edges that agree, level by level."""
    source = np.repeat(np.arange(graph.num_nodes), graph.degree)
    weight = graph.weight if len(graph.weight) else np.ones(len(source))
    return sum(weight[leaf[source] // span == leaf[graph.neighbor] // span].sum() for span in spans)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_nodes", [60, 50, 8])
def test_every_exchange_raises_what_agrees(num_nodes, weighted):
    """Stopped after each asked node, the sum never falls; the places are a bijection throughout."""
    edges = random_edges(num_nodes, 4 * num_nodes)
    graph = Adjacency.of(edges, num_nodes, torch.rand(len(edges[0])) if weighted else None)
    size, spans = 5, np.array([4, 1])
    random = np.random.default_rng(0)
    held = np.full(60, -1)
    places = random.permutation(60)[:num_nodes]
    held[places] = np.arange(num_nodes)
    leaf = places // size
    before = agreeing(graph, leaf, spans)
    for node in random.permutation(num_nodes):
        kind, first = np.zeros(num_nodes, np.int64), np.array([0, 60])
        asked = np.array([node])
        exchange(*rows_of(graph), kind, leaf, held, first, np.array([size]), spans, asked)
        after = agreeing(graph, leaf, spans)
        assert after >= before
        before = after
        there = held >= 0
        assert sorted(held[there]) == list(range(num_nodes))
        assert (leaf[held[there]] == there.nonzero()[0] // size).all()


def test_attracted_nodes_go_where_most_neighbours_are_while_there_is_room():
    edges = torch.tensor([[0, 0, 0, 1, 1], [2, 3, 4, 2, 3]])
    graph = Adjacency.of(edges, 5)
    kind, order = np.zeros(5, np.int64), np.arange(5)
    for free, expected in ((2, [1, 1, 1, 1, 1]), (1, [1, 0, 1, 1, 1]), (0, [0, 0, 1, 1, 1])):
        part, room = np.array([0, 0, 1, 1, 1]), np.array([[0, free]])
        attract(*rows_of(graph), kind, part, room, order[:2])
        assert part.tolist() == expected
        assert room.tolist() == [[part[:2].sum(), free - part[:2].sum()]]
