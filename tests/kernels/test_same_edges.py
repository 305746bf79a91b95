import pytest
import torch

from lit_gnncompress.kernels import Adjacency
from lit_gnncompress.kernels.reference.same_edges import same_edges as reference
from lit_gnncompress.kernels.same_edges import same_edges


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_only_the_same_edges_are(ordered, dtype):
    torch.manual_seed(0)
    edges = torch.randint(20, (2, 101))
    edges = edges[:, edges[1].argsort()] if ordered else edges
    adjacency = Adjacency.from_edge_index(*edges, 20, 20)
    parts = (adjacency.rowptr, adjacency.col, adjacency.perm)
    source, target = edges.to(dtype)
    assert same_edges(source, target, adjacency)
    assert reference(source, target, *parts)
    for changed in (0, 50, 100):
        for ends in (0, 1):
            other = [source.clone(), target.clone()]
            other[ends][changed] = (other[ends][changed] + 1) % 20
            assert not same_edges(*other, adjacency)
            assert not reference(*other, *parts)
    assert not same_edges(source[1:], target[1:], adjacency)


def test_no_edges():
    none = torch.empty(0, dtype=torch.long)
    assert same_edges(none, none, Adjacency.from_edge_index(none, none, 3, 3))
