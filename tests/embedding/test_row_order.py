import pytest
import torch

from lit_gnncompress.embedding.row_order import RowOrder


def test_places_keep_to_themselves():
    place = torch.tensor([4, 0, 3])
    order = RowOrder(place, (2, 3))
    place.zero_()
    assert order(torch.tensor([[2, 0]])).tolist() == [[3, 4]]
    assert (order.capacity, order.place.dtype) == (6, torch.int32)


@pytest.mark.parametrize("graph_hash", [None, "a1"])
def test_a_state_can_stand_in_for_the_order(graph_hash):
    orders = [RowOrder(torch.tensor(place), (2, 3), graph_hash) for place in ([4, 0, 3], [1, 2, 5])]
    found = torch.func.functional_call(orders[0], orders[1].state_dict(), torch.tensor([2, 0]))
    assert found.tolist() == [5, 1]
    assert [order.graph_hash for order in orders] == [graph_hash] * 2


def test_places_beyond_32_bits():
    order = RowOrder(torch.tensor([0]), (2**16, 2**16))
    assert order.place.dtype == torch.int64


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ([0, 3, 3], "no bijection: nodes 1 and 2 share the place 3"),
        ([0, 6, 1], "has the place 6: there are 6"),
        ([0, -1, 1], "has the place -1"),
        ([0.0, 1.0], "int64 or int32"),
        ([[0, 1]], r"of shape \(N,\)"),
    ],
)
def test_what_is_no_order(place, message):
    with pytest.raises(ValueError, match=message):
        RowOrder(torch.tensor(place), (2, 3))
