import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, Linear, MessagePassing, SAGEConv

from lit_gnncompress.plan import BitPlan, Site
from lit_gnncompress.quantization import find_sites, quantize_

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])


class Model(nn.Module):
    """A convolution, and a linear layer for nodes and one for graphs."""

    def __init__(self, conv=None):
        super().__init__()
        self.conv = conv or SAGEConv(5, 5)
        self.lin = nn.Linear(5, 3)
        self.head = Linear(3, 2)

    def forward(self, x, edge_index):
        return self.head(self.lin(self.conv(x, edge_index)).mean(0, keepdim=True))


def test_sites_are_layers_that_see_nodes_and_attention():
    model = Model(GINConv(nn.Sequential(nn.Linear(5, 5))))  # whose own layer belongs to it
    model.gat = GATConv(5, 5)
    model.norm = nn.BatchNorm1d(5)
    assert list(find_sites(model)) == [
        Site("conv", "features"),
        Site("lin", "features"),
        Site("head", "features"),
        Site("gat", "features"),
        Site("gat", "attention"),
    ]


def test_a_convolution_alone_is_one_site():
    assert list(find_sites(GCNConv(5, 5))) == [Site("", "features")]
    assert list(find_sites(GATConv(5, 5))) == [Site("", "features"), Site("", "attention")]


@pytest.mark.parametrize("part", ["model", "conv"])
def test_compiled_parts_keep_their_names(part):
    model = Model()
    if part == "model":
        model = torch.compile(model, backend="eager")
    else:
        model.conv = torch.compile(model.conv, backend="eager")
    assert [site.name for site in find_sites(model)] == ["conv", "lin", "head"]
    x = torch.randn(4, 5)
    expected = model(x, EDGES)
    quantization = quantize_(model, BitPlan({"conv": 1}))
    assert not torch.equal(model(x, EDGES), expected)
    assert torch.equal(quantization.remove()(x, EDGES), expected)


def test_a_module_without_message_passing_is_refused():
    with pytest.raises(ValueError, match=r"Sequential has no message-passing layer.*Expected PyG"):
        find_sites(nn.Sequential(nn.Linear(2, 2)))


def test_attention_that_cannot_be_counted_is_said_to_be():
    class Attends(MessagePassing):
        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x.softmax(dim=1))

    with pytest.warns(UserWarning, match="attention of Attends stays in fp32"):
        quantize_(Attends(), BitPlan(features=4))
