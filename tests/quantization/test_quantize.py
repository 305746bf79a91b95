import pytest
import torch
from torch import nn
from torch_geometric.nn import GAT, GCN, GATConv, GraphSAGE, HeteroConv, Linear, SAGEConv, to_hetero

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization import Quantizer, quantize_
from lit_gnncompress.quantization.quantize import remove_quantization

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
RATES, RATED = ("user", "rates", "item"), ("item", "rated_by", "user")
HETERO_EDGES = {RATES: torch.tensor([[0, 1, 1], [2, 0, 1]]), RATED: torch.tensor([[2, 0], [0, 1]])}


@pytest.fixture
def x():
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def x_dict(x):
    return {"user": x[:2], "item": x[1:]}


class Hetero(nn.Module):
    def __init__(self):
        super().__init__()
        convs = {RATES: SAGEConv((5, 5), 5), RATED: GATConv((5, 5), 5, add_self_loops=False)}
        self.conv = HeteroConv(convs)
        self.lin = Linear(5, 3)

    def forward(self, x_dict, edge_index_dict):
        return {key: self.lin(x) for key, x in self.conv(x_dict, edge_index_dict).items()}


class Homogeneous(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.lin = SAGEConv((5, 5), 5), Linear(5, 3)

    def forward(self, x, edge_index):
        return self.lin(self.conv(x, edge_index).relu())


def hetero_model(kind):
    torch.manual_seed(0)
    if kind == "HeteroConv":
        return Hetero()
    return to_hetero(Homogeneous(), (["user", "item"], [RATES, RATED]))


@pytest.mark.parametrize("kind", ["HeteroConv", "to_hetero"])
@pytest.mark.parametrize("by_degree", [False, True])
def test_heterogeneous_models(kind, by_degree, x_dict):
    model = hetero_model(kind)
    before = model(x_dict, HETERO_EDGES)
    bits = {"conv*": [1, 4], "lin*": [2, 3]}
    plan = BitPlan(bits, degree_splits=[2]) if by_degree else BitPlan(2)
    quantization = quantize_(model, plan)
    nodes = {key: x.size(0) for key, x in x_dict.items()}
    degrees = {"user": torch.tensor([1, 2]), "item": torch.tensor([0, 3, 2])}
    quantization.publish(nodes, degrees if by_degree else None)
    quantized = model(x_dict, HETERO_EDGES)
    assert all(site.seen for site in quantization.sites)
    quantization.remove()
    after = model(x_dict, HETERO_EDGES)
    for key in x_dict:
        assert not torch.allclose(quantized[key], before[key])
        assert torch.equal(after[key], before[key])


def test_heterogeneous_layers_are_named_by_their_edges():
    quantization = quantize_(hetero_model("HeteroConv"), BitPlan({"*rates*": 4}, {"*rated_by*": 8}))
    bits = {(*site.site,): site.bits for site in quantization.sites}
    assert bits == {
        ("conv.convs.<user___rates___item>", "features"): (4,),
        ("conv.convs.<item___rated_by___user>", "features"): (32,),
        ("conv.convs.<item___rated_by___user>", "attention"): (8,),
        ("lin", "features"): (32,),
    }


def test_a_module_is_quantized_once():
    model = GCN(5, 5, num_layers=2)
    quantization = quantize_(model, BitPlan(4))
    with pytest.raises(ValueError, match=r"GCN is quantized already: .*remove_quantization"):
        quantize_(model, BitPlan(4))
    quantization.remove()
    quantize_(model, BitPlan(2)).remove()
    assert remove_quantization(model) is model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"range": "minmx"}, r"range='minmx' is none of.*Did you mean 'minmax'"),
        ({"range": {"convs.1": "minmx"}}, r"range='minmx' is none of"),
        ({"range": {"conv.1": "minmax"}}, r"range\['conv.1'\]: no such layer.*convs.1"),
        ({"granularity": {"convs.1": "edge"}}, r"granularity='edge' is none of"),
        ({"granularity": {"c*x": "row"}}, r"granularity\['c\*x'\] matches no layer"),
        ({"attention_range": "max"}, r"range='max' is none of"),
        ({"rounding": "down"}, r"rounding='down' is none of"),
        ({"percentile": 2}, r"percentile=2 must lie in"),
    ],
)
def test_wrong_arguments_leave_the_module_alone(arguments, message):
    model = GAT(5, 5, num_layers=2)
    with pytest.raises(ValueError, match=message):
        quantize_(model, BitPlan(4, attention=8), **arguments)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert {type(conv) for conv in model.convs} == {GATConv}


@pytest.mark.parametrize("argument", ["range", "granularity"])
def test_layers_have_settings_of_their_own(argument):
    value, default = {"range": ("minmax", "mse"), "granularity": ("row", "auto")}[argument]
    quantization = quantize_(GCN(5, 5, num_layers=3), BitPlan(4), **{argument: {"convs.1": value}})
    settings = [getattr(site.quantizer, argument) for site in quantization.sites]
    assert settings == [default, value, default]


def test_settings_reach_features_and_attention():
    quantization = quantize_(
        GATConv(5, 5), BitPlan(4, 8), range="percentile", granularity="column", rounding="floor",
        percentile=0.9, attention_range="mse", renormalize=False,
    )  # fmt: skip
    features, attention = quantization.sites
    assert features.quantizer == Quantizer("percentile", "column", "floor", 0.9)
    assert attention.quantizer == Quantizer("mse", "bucket", "floor", 0.9)
    assert attention.renormalize is False


def test_sites_tell_what_passed_them(x):
    quantization = quantize_(GAT(5, 5, num_layers=2, heads=5), BitPlan(4, {"convs.0": 8}))
    quantization.module(x, EDGES)
    names = ["convs.0", "convs.0", "convs.1", "convs.1"]
    assert [site.site.name for site in quantization.sites] == names
    assert [site.bits for site in quantization.sites] == [(4,), (8,), (4,), (32,)]
    # With self-loops, there are 9 edges; each layer has 5 heads.
    assert [site.seen[0].shape for site in quantization.sites] == [(4, 5), (9, 5), (4, 5), (9, 5)]


def test_a_layer_that_is_used_twice_is_one_site(x):
    conv = SAGEConv(5, 5)
    quantization = quantize_(nn.ModuleDict({"first": conv, "second": conv}), BitPlan(2))
    assert [site.site.name for site in quantization.sites] == ["first"]
    quantizer, plain = Quantizer(), SAGEConv(5, 5)
    plain.load_state_dict(conv.state_dict())
    expected = plain(quantizer(plain(quantizer(x, 2), EDGES), 2), EDGES)
    assert torch.equal(conv(conv(x, EDGES), EDGES), expected)


def test_lazy_layers_are_initialised_first(x):
    model = GCN(-1, 6, num_layers=2, out_channels=3)
    quantize_(model, BitPlan(8))
    assert model(x, EDGES).shape == (4, 3)


@pytest.mark.parametrize("enabled", [True, False])
def test_compiled_models_notice_the_switch(x, enabled):
    torch.manual_seed(0)
    model = GCN(5, 5, num_layers=2)
    compiled = torch.compile(model, backend="eager")
    compiled(x, EDGES)
    quantization = quantize_(model, BitPlan(2))
    quantization.enabled = not enabled
    compiled(x, EDGES)
    quantization.enabled = enabled
    torch.testing.assert_close(compiled(x, EDGES), model(x, EDGES))
    quantization.remove()
    torch.testing.assert_close(compiled(x, EDGES), model(x, EDGES))


def test_quantized_training_learns(x):
    torch.manual_seed(0)
    model = GraphSAGE(5, 8, num_layers=2, out_channels=1)
    target = torch.tensor([[1.0], [-1], [1], [-1]])
    quantize_(model, BitPlan([4, 6], degree_splits=[2]))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        loss = (model(x, EDGES) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
