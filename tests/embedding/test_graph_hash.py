"""Fingerprints tell graphs apart, and nothing else."""

import pytest
import torch

from lit_gnncompress.embedding.graph_hash import check_graph, graph_hash
from tests.embedding.graphs import random_edges

EDGES = random_edges(50, 300)
WEIGHT = torch.rand(300, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_the_order_of_edges_and_their_dtype_do_not_matter(weight):
    known = graph_hash(EDGES, 50, weight)
    mixed = torch.randperm(300)
    assert graph_hash(EDGES[:, mixed], 50, None if weight is None else weight[mixed]) == known
    assert graph_hash(EDGES.int(), 50, None if weight is None else weight.double()) == known
    assert graph_hash(EDGES.T.contiguous().T, 50, weight) == known
    assert len(known) == 32


def test_all_else_does():
    other = EDGES.clone()
    other[1, 7] = (other[1, 7] + 1) % 50
    heavier = WEIGHT.clone()
    heavier[3] += 1e-6
    swapped = EDGES.clone()
    swapped[0, 0], swapped[0, 1] = EDGES[0, 1], EDGES[0, 0]
    graphs = [
        (EDGES, 50, None), (EDGES, 51, None), (EDGES[:, 1:], 50, None), (EDGES.flip(0), 50, None),
        (other, 50, None), (swapped, 50, None), (torch.cat([EDGES, EDGES[:, :1]], 1), 50, None),
        (torch.cat([EDGES, EDGES], 1), 50, None), (EDGES[:, :0], 50, None),
        (EDGES, 50, WEIGHT), (EDGES, 50, heavier), (EDGES, 50, WEIGHT.flip(0)),
        (EDGES, 50, torch.zeros(300)),
    ]  # fmt: skip
    assert len({graph_hash(*graph) for graph in graphs}) == len(graphs)


def test_single_edges_do_not_collide():
    node = torch.arange(120)
    pairs = torch.cartesian_prod(node, node)
    assert len({graph_hash(pair[:, None], 120) for pair in pairs}) == 120**2


@pytest.mark.parametrize(
    ("edges", "num_nodes", "weight", "error", "message"),
    [
        ([[0, 1], [1, -2]], 3, None, IndexError, r"edge_index\[1, 1\]=-2 is no node: num_nodes=3"),
        ([[0, 3], [1, 2]], 3, None, IndexError, r"edge_index\[0, 1\]=3 is no node"),
        ([[0, 1, 2]], 3, None, ValueError, r"shape \(2, E\), got \(1, 3\)"),
        ([[0.0], [1.0]], 3, None, ValueError, r"whole numbers, got torch.float32: call .long"),
        ([[0], [1]], 0, None, ValueError, "num_nodes=0"),
        ([[0], [1]], 2**31, None, ValueError, "num_nodes=2147483648"),
        ([[0], [1]], 3, [1.0, 2.0], ValueError, r"edge_weight has shape \(2,\)"),
        ([[0, 1], [1, 2]], 3, [1.0, -0.5], ValueError, r"edge_weight\[1\]=-0.5 must be 0 or more"),
        ([[0], [1]], 3, [float("nan")], ValueError, r"edge_weight\[0\]=nan"),
        ([[0], [1]], 3, [float("inf")], ValueError, r"edge_weight\[0\]=inf"),
    ],
)
def test_what_is_no_graph_is_refused(edges, num_nodes, weight, error, message):
    weight = None if weight is None else torch.tensor(weight)
    with pytest.raises(error, match=message):
        check_graph(torch.tensor(edges), num_nodes, weight)


def test_ends_may_be_of_two_kinds():
    check_graph(torch.tensor([[4], [1]]), (5, 2))
    with pytest.raises(IndexError, match=r"edge_index\[1, 0\]=2 is no node: num_nodes=2"):
        check_graph(torch.tensor([[4], [2]]), (5, 2))
