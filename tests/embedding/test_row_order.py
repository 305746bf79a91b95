import pytest
import torch

from lit_gnncompress.embedding.row_order import RowOrder


def test_places_keep_to_themselves():
    place = torch.tensor([4, 0, 3])
    order = RowOrder(place, (2, 3))
    place.zero_()
    assert order(torch.tensor([[2, 0]])).tolist() == [[3, 4]]
    assert (order.capacity, order.place.dtype) == (6, torch.int32)


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
