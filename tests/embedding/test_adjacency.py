"""Rows of neighbours against a dense matrix."""

import numpy as np
import pytest
import torch

from lit_gnncompress.embedding.adjacency import Adjacency
from tests.embedding.graphs import random_edges

N = 23


def dense(graph):
    out = np.zeros((graph.num_nodes, graph.num_nodes), dtype=np.int64)
    for node in range(graph.num_nodes):
        slots = slice(graph.start[node], graph.start[node + 1])
        assert (np.diff(graph.neighbor[slots]) > 0).all()  # sorted, each once
        out[node, graph.neighbor[slots]] = graph.weight[slots] if len(graph.weight) else 1
    return out


def summed(edges, weight):
    out = torch.zeros(N, N, dtype=torch.float64)
    for (a, b), w in zip(edges.T.tolist(), weight.tolist(), strict=True):
        if a != b:
            out[a, b] += w
            out[b, a] += w
    return out.numpy()


@pytest.mark.parametrize("num_edges", [0, 1, 60, 900])
@pytest.mark.parametrize("in_file", [False, True])
def test_edges_count_once_in_both_directions(num_edges, in_file, tmp_path):
    edges = random_edges(N, num_edges)
    graph = Adjacency.of(edges, N, folder=tmp_path if in_file else None)
    expected = summed(edges, torch.ones(num_edges)) > 0
    assert (dense(graph) == expected).all()
    assert (graph.degree == expected.sum(0)).all()
    assert graph.neighbor.dtype == graph.start.dtype == np.int64  # what METIS takes as it is
    assert len(list(tmp_path.iterdir())) == (in_file and num_edges > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_weights_are_added_up_and_scaled(dtype):
    edges = random_edges(N, 200)
    weight = torch.randint(0, 5, (200,), generator=torch.Generator().manual_seed(1)).to(dtype)
    graph = Adjacency.of(edges, N, weight)
    expected = summed(edges, weight)
    scaled = np.rint(expected * (2**24 / expected.max()))
    assert (dense(graph) == scaled).all()


def test_the_lightest_edge_is_still_one():
    graph = Adjacency.of(torch.tensor([[0, 1], [1, 2]]), 3, torch.tensor([1e-30, 1e30]))
    assert graph.weight.tolist() == [1, 1, 2**24, 2**24]


@pytest.mark.parametrize("form", ["int32", "strided", "grad"])
def test_edges_may_lie_anyhow(form):
    edges = random_edges(N, 50)
    weight = torch.rand(50)
    expected = Adjacency.of(edges, N, weight)
    if form == "int32":
        edges = edges.int()
    elif form == "strided":
        edges = edges.T.contiguous().T
    else:
        weight.requires_grad_()
    graph = Adjacency.of(edges, N, weight)
    assert (dense(graph) == dense(expected)).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_parts", [1, 4, 30])
def test_parts_hold_what_is_inside_them(num_parts, weighted):
    edges = random_edges(N, 150)
    graph = Adjacency.of(edges, N, torch.rand(150) if weighted else None)
    part = torch.randint(num_parts, (N,), generator=torch.Generator().manual_seed(2)).numpy()
    seen = []
    for number, (nodes, inner) in enumerate(graph.split(part, num_parts)):
        assert (part[nodes] == number).all()
        assert (dense(inner) == dense(graph)[np.ix_(nodes, nodes)]).all()
        seen += nodes.tolist()
    assert sorted(seen) == list(range(N))
