import pytest
import torch
from torch_geometric.nn import MessagePassing

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization import Quantizer, quantize_
from lit_gnncompress.quantization.layer_arguments import (
    adjacency_of,
    features_name,
    named_arguments,
    replaced,
)

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
H = torch.rand(4, 3)
NAMES = ["edge_index", "h", "scale"]


class EdgesFirst(MessagePassing):
    def forward(self, edge_index, h):
        return self.propagate(edge_index, x=h)


@pytest.mark.parametrize("by_name", [False, True])
def test_features_by_another_name_and_place(by_name):
    conv = EdgesFirst()
    quantize_(conv, BitPlan(features=2))
    out = conv(h=H, edge_index=EDGES) if by_name else conv(EDGES, H)
    assert torch.equal(out, EdgesFirst()(EDGES, Quantizer()(H, 2)))


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ({"edge_index": EDGES, "h": H}, "h"),
        ({"h": (H, None)}, "h"),
        ({"h": {"a": H}}, "h"),
        ({"adj": torch.eye(4), "h": H}, "h"),  # a dense adjacency is a matrix of floats, too
        ({"a": H.to_sparse(), "h": H}, "h"),
        ({"weight": H[0], "h": H}, "h"),
        ({"edge_index": EDGES, "scale": 2.0}, None),
        ({"pair": ()}, None),
    ],
)
def test_features_are_the_first_that_can_be(named, name):
    assert features_name([*named], named) == name


def test_features_called_x_are_those():
    assert features_name(["h", "x"], {"h": H}) == "x"


@pytest.mark.parametrize("form", [EDGES, EDGES.to_sparse(), torch.eye(4).to_sparse_csr()])
@pytest.mark.parametrize("name", ["edge_index", "adj_t", "adj", "links"])
def test_edges_by_name_or_by_form(name, form):
    named = {"weight": torch.ones(4, dtype=torch.long), "h": H, name: form}
    assert adjacency_of(named) is form


def test_edges_that_are_not_there():
    assert adjacency_of({"h": H, "edge_index": None}) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_value_is_replaced_wherever_it_is_given(count):
    values = (EDGES, H, 2.0)
    args, kwargs = values[:count], dict(zip(NAMES[count:], values[count:], strict=True))
    new = H + 1
    again = named_arguments(NAMES, *replaced(NAMES, args, kwargs, "h", new))
    assert again["h"] is new
    assert again["edge_index"] is EDGES
    assert again["scale"] == 2
    assert named_arguments(NAMES, args, kwargs)["h"] is H
