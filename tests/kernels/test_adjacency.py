import pickle

import pytest
import torch

from lit_gnncompress.kernels import Adjacency


@pytest.fixture
def edge_index():
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(0, high, (200,), generator=generator) for high in (30, 20)])


def edges_of(adjacency):
    """Sources and targets in the caller's order."""
    row = torch.repeat_interleave(torch.arange(adjacency.num_targets), adjacency.degrees)
    edges = torch.stack([adjacency.col.long(), row])
    if adjacency.perm is None:
        return edges
    return torch.empty_like(edges).index_copy_(1, adjacency.perm.long(), edges)


def test_keeps_edges(edge_index):
    adjacency = Adjacency.from_edge_index(*edge_index, 30, 20)
    assert torch.equal(edges_of(adjacency), edge_index)
    assert (adjacency.num_sources, adjacency.num_targets, adjacency.num_edges) == (30, 20, 200)
    assert torch.equal(adjacency.degrees, edge_index[1].bincount(minlength=20))


def test_transposed_keeps_the_numbers_of_edges(edge_index):
    adjacency = Adjacency.from_edge_index(*edge_index, 30, 20)
    assert torch.equal(edges_of(adjacency.transposed), edge_index.flip(0))
    assert adjacency.transposed is adjacency.transposed
    assert torch.equal(edges_of(adjacency.transposed.transposed), edge_index)


def test_sorted_edges_keep_their_places(edge_index):
    edge_index = edge_index[:, edge_index[1].argsort(stable=True)]
    adjacency = Adjacency.from_edge_index(*edge_index, 30, 20)
    assert adjacency.perm is None
    assert torch.equal(edges_of(adjacency.transposed), edge_index.flip(0))


def test_transposed_of_edges_sorted_both_ways():
    path = torch.arange(9)
    adjacency = Adjacency.from_edge_index(path, path + 1, 9, 10)
    assert adjacency.perm is None
    assert adjacency.transposed.perm is None
    mixed = torch.tensor([3, 0, 2, 1])
    adjacency = Adjacency.from_edge_index(mixed, mixed, 4, 4)
    assert torch.equal(edges_of(adjacency.transposed), mixed.expand(2, 4))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_from_csr(edge_index, dtype):
    expected = Adjacency.from_edge_index(*edge_index, 30, 20)
    adjacency = Adjacency.from_csr(expected.rowptr.to(dtype), expected.col.to(dtype), 30)
    assert torch.equal(adjacency.rowptr, expected.rowptr)
    assert torch.equal(adjacency.col, expected.col)
    assert adjacency.perm is None


def test_no_nodes_and_no_edges():
    none = torch.empty(0, dtype=torch.int64)
    adjacency = Adjacency.from_edge_index(none, none, 0, 0)
    assert (adjacency.num_targets, adjacency.num_edges, adjacency.perm) == (0, 0, None)
    assert adjacency.transposed.num_targets == 0
    assert Adjacency.from_csr(torch.tensor([0]), none, 3).transposed.num_targets == 3


def test_pickles_and_moves(edge_index):
    adjacency = Adjacency.from_edge_index(*edge_index, 30, 20)
    assert torch.equal(edges_of(pickle.loads(pickle.dumps(adjacency))), edge_index)
    assert adjacency.to("cpu") is adjacency
    assert adjacency.transposed is not None
    moved = adjacency.to("meta")
    assert moved.device == moved.transposed.device == torch.device("meta")
    assert "num_edges=200" in repr(adjacency)


def test_ends_that_are_no_nodes(edge_index):
    with pytest.raises(IndexError, match=r"source\[\d+\]=29 is no node: num_sources=29"):
        Adjacency.from_edge_index(*edge_index, 29, 20)
    with pytest.raises(IndexError, match=r"target\[\d+\]=19 is no node: num_targets=19"):
        Adjacency.from_edge_index(*edge_index, 30, 19)
    with pytest.raises(IndexError, match=r"source\[1\]=-2"):
        Adjacency.from_csr(torch.tensor([0, 2]), torch.tensor([0, -2]), 3)


@pytest.mark.parametrize(
    ("rowptr", "message"),
    [
        ([0, 2], "runs from 0 to 2, but must run from 0 to 3"),
        ([1, 3], "runs from 1 to 3"),
        ([], "nowhere"),
        ([0, 2, 1, 3], r"rowptr\[2\]=1 is less than rowptr\[1\]=2"),
    ],
)
def test_pointers_that_do_not_fit(rowptr, message):
    rowptr = torch.tensor(rowptr, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        Adjacency.from_csr(rowptr, torch.tensor([0, 1, 2]), 3)


def test_other_dtypes():
    with pytest.raises(ValueError, match="rowptr must be int64 or int32"):
        Adjacency.from_csr(torch.tensor([0.0]), torch.tensor([0]), 3)
    with pytest.raises(ValueError, match="col must be int64 or int32"):
        Adjacency.from_csr(torch.tensor([0]), torch.tensor([[0]]), 3)
