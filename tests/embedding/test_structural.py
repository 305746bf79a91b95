"""Vectors by structure: of the graph alone, alike where neighbourhoods are."""

import pytest
import torch
import torch.nn.functional as F

from lit_gnncompress.embedding import structural_vectors
from tests.embedding.graphs import grid


def communities(count, size, seed=0):
    """Dense groups of nodes in a ring, one edge between two that follow each other."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.randint(size, (2, 6 * size * count), generator=generator)
    edges = inside + size * torch.arange(count).repeat_interleave(6 * size)
    first = size * torch.arange(count)
    ring = torch.stack([first, first.roll(1) + 1])
    return torch.cat([edges, ring], dim=1)


def test_nodes_of_a_community_are_alike():
    vectors = F.normalize(structural_vectors(communities(8, 20), 160, 32), dim=1)
    cosine = vectors @ vectors.T
    community = torch.arange(160) // 20
    same = community[:, None] == community
    assert cosine[same].mean() > 0.5
    assert cosine[~same].mean() < 0.1


def test_vectors_have_unit_size_and_follow_the_seed():
    edges = grid(12)
    vectors = structural_vectors(edges, 144, 16, seed=3)
    assert vectors.shape == (144, 16)
    torch.testing.assert_close(vectors.square().mean(), torch.tensor(1.0))
    assert torch.equal(vectors, structural_vectors(edges, 144, 16, seed=3))
    assert not torch.equal(vectors, structural_vectors(edges, 144, 16, seed=4))


@pytest.mark.parametrize(
    "change",
    [
        lambda edges: edges.flip(0),
        lambda edges: torch.cat([edges, edges], dim=1),
        lambda edges: edges[:, torch.randperm(edges.size(1))],
        lambda edges: torch.cat([edges, torch.tensor([[5], [5]])], dim=1),
        lambda edges: edges.int(),
    ],
    ids=["flipped", "twice", "shuffled", "loop", "int32"],
)
def test_only_who_is_joined_matters(change):
    edges = grid(9)
    expected = structural_vectors(edges, 81, 8)
    torch.testing.assert_close(structural_vectors(change(edges), 81, 8), expected)


def test_one_hop_is_the_average_over_neighbours():
    vectors = structural_vectors(torch.tensor([[0, 1], [1, 2]]), 4, 5, hops=1, seed=1)
    drawn = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    step = torch.stack([drawn[1], (drawn[0] + drawn[2]) / 2, drawn[1], torch.zeros(5)])
    expected = step - step.mean(dim=0)
    torch.testing.assert_close(vectors, expected / expected.square().mean().sqrt())


@pytest.mark.parametrize(
    ("edges", "nodes", "arguments", "message"),
    [
        ([[0], [1]], 2, {"embedding_dim": 0}, "embedding_dim=0 must be at least 1"),
        ([[0], [1]], 2, {"embedding_dim": 4, "hops": 0}, "hops=0 must be at least 1"),
        ([[0, 1], [0, 1]], 2, {"embedding_dim": 4}, "joins no two nodes"),
    ],
)
def test_what_gives_no_vectors_is_refused(edges, nodes, arguments, message):
    with pytest.raises(ValueError, match=message):
        structural_vectors(torch.tensor(edges), nodes, **arguments)


def test_an_edge_to_no_node_is_refused():
    with pytest.raises(IndexError, match=r"edge_index\[1, 0\]=5 is no node: num_nodes=2"):
        structural_vectors(torch.tensor([[0], [5]]), 2, 4)
