import pytest
import torch
from torch_geometric.utils import contains_self_loops, degree, is_undirected

from lit_gnncompress.data import digits_graph


def test_digits_are_a_plain_undirected_graph():
    data = digits_graph()
    assert data.x.shape == (1797, 64)
    assert data.x.dtype == torch.float32
    assert (data.x.min(), data.x.max()) == (0, 1)
    assert sorted(data.y.unique().tolist()) == list(range(10))
    assert is_undirected(data.edge_index)
    assert not contains_self_loops(data.edge_index)
    assert degree(data.edge_index[1]).min() >= 10


def test_digits_are_the_same_everywhere():
    first, second = digits_graph(), digits_graph()
    assert torch.equal(first.edge_index, second.edge_index)
    assert first.num_edges == 24_678


def test_neighbours_are_the_nearest():
    data = digits_graph(num_neighbors=1)
    distance = torch.cdist(data.x[:1], data.x)[0]
    neighbours = data.edge_index[0][data.edge_index[1] == 0].tolist()
    assert distance.argsort()[1].item() in neighbours


@pytest.mark.parametrize("number", [0, 1797])
def test_impossible_neighbours_are_refused(number):
    with pytest.raises(ValueError, match=f"num_neighbors={number} must be from 1 to 1796"):
        digits_graph(number)
