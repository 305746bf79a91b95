import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import (
    AGNNConv,
    GATConv,
    GATv2Conv,
    MessagePassing,
    SuperGATConv,
    TransformerConv,
)
from torch_geometric.utils import scatter, softmax

from lit_gnncompress.plan import BitPlan, Site
from lit_gnncompress.quantization import (
    QuantizedAttention,
    Quantizer,
    quantize_,
    register_attention,
)
from lit_gnncompress.quantization.attention import _REGISTRY, AttentionSite
from lit_gnncompress.quantization.context import GraphContext

ALPHA = torch.tensor([0.6, 0.4, 0.9, 0.1, 1.0])
INDEX = torch.tensor([0, 0, 1, 1, 2])  # nodes 0 and 1 have two neighbours, node 2 has one
EDGES = torch.tensor([[1, 2, 0, 2, 0, 3], [0, 0, 1, 1, 2, 2]])


class WeighedConv(MessagePassing):
    """Somebody's convolution, which the registry does not know."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_i, x_j, index, size_i):
        alpha = softmax((x_i * x_j).sum(-1), index, num_nodes=size_i)
        return alpha.view(-1, 1) * x_j


class QuantizedWeighedConv(QuantizedAttention, WeighedConv):
    def message(self, x_i, x_j, index, size_i):
        alpha = softmax((x_i * x_j).sum(-1), index, num_nodes=size_i)
        return self.attention_site(alpha, index, size_i).view(-1, 1) * x_j


@pytest.fixture
def registry(monkeypatch):
    for conv, quantized in _REGISTRY.items():
        monkeypatch.setitem(_REGISTRY, conv, quantized)
    yield
    _REGISTRY.pop(WeighedConv, None)


def site(bits, renormalize=True, splits=(), quantizer=None):
    return AttentionSite(
        Site("conv", "attention"),
        bits,
        quantizer or Quantizer("minmax", "bucket"),
        renormalize,
        GraphContext(splits),
    )


@pytest.mark.parametrize(
    ("bits", "codes"), [(1, [1, 0, 1, 0, 1]), (2, [2, 1, 3, 0, 3]), (3, [4, 2, 6, 0, 7])]
)
@pytest.mark.parametrize("renormalize", [True, False])
def test_coefficients_written_out_by_hand(bits, codes, renormalize):
    expected = torch.tensor(codes) * (0.9 / (2**bits - 1)) + 0.1
    if renormalize:
        expected /= torch.stack(
            [*[expected[:2].sum()] * 2, *[expected[2:4].sum()] * 2, expected[4]]
        )
    torch.testing.assert_close(site((bits,), renormalize)(ALPHA, INDEX, 3), expected)


@pytest.mark.parametrize("heads", [1, 3])
def test_coefficients_of_a_node_sum_to_one(heads):
    index = torch.randint(50, (400,))
    alpha = softmax(3 * torch.randn(400, heads), index, num_nodes=50)
    out = site((1,))(alpha, index, 50)
    total = scatter(out, index, 0, 50, "sum")
    torch.testing.assert_close(total[index.unique()], torch.ones(len(index.unique()), heads))


def test_a_node_whose_coefficients_all_vanish_weighs_its_neighbours_alike():
    alpha = torch.tensor([0.25, 0.25, 0.3, 0.2, 1.0, 0.0]).requires_grad_()
    index = torch.tensor([0, 0, 0, 0, 1, 1])
    out = site((1,))(alpha, index, 2)
    assert out.tolist() == [0.25, 0.25, 0.25, 0.25, 1.0, 0.0]
    out.sum().backward()
    assert torch.isfinite(alpha.grad).all()


def test_the_bucket_is_that_of_the_receiving_node():
    out = site((32, 1), splits=(2,))(ALPHA, INDEX, 3)
    assert out[4] == ALPHA[4]
    torch.testing.assert_close(out[:4], torch.tensor([0.9, 0.1, 0.9, 0.1]))
    out = site((1, 32), splits=(2,))(ALPHA, INDEX, 3)
    assert torch.equal(out[:4], ALPHA[:4])


@pytest.mark.parametrize("bits", [(4,), (32,)])
def test_a_graph_without_edges_passes(bits):
    alpha = torch.empty(0, 2)
    assert site(bits)(alpha, torch.empty(0, dtype=torch.long), 3) is alpha


CONVS = {
    GATConv: lambda **kwargs: GATConv(4, 3, heads=2, **kwargs),
    GATv2Conv: lambda **kwargs: GATv2Conv(4, 3, heads=2, **kwargs),
    TransformerConv: lambda **kwargs: TransformerConv(4, 3, heads=2, **kwargs),
    SuperGATConv: lambda **kwargs: SuperGATConv(4, 3, heads=2, **kwargs),
}


@pytest.mark.parametrize("cls", CONVS)
def test_dropout_thins_coefficients_after_they_are_quantized(cls, monkeypatch):
    conv, thinned, dropout = CONVS[cls](dropout=0.5), [], F.dropout
    quantize_(conv, BitPlan(attention=1), renormalize=False)

    def spy(alpha, p, training):
        thinned.append((alpha.detach(), p, training))
        return dropout(alpha, p=p, training=training)

    monkeypatch.setattr(F, "dropout", spy)
    conv(torch.randn(4, 4), EDGES)
    alpha = [alpha for alpha, p, training in thinned if p == 0.5 and training]
    assert len(alpha) == 1
    assert len(alpha[0].unique()) == 2
    assert conv.dropout == 0.5


@pytest.mark.parametrize("cls", CONVS)
def test_dropout_draws_what_it_drew_before(cls):
    conv, x, outs = CONVS[cls](dropout=0.5), torch.randn(4, 4), []
    for plan in (None, BitPlan()):
        if plan is not None:
            quantize_(conv, plan)
        torch.manual_seed(0)
        outs.append(conv(x, EDGES))
    assert torch.equal(*outs)


@pytest.mark.parametrize("cls", [GATConv, GATv2Conv, TransformerConv])
def test_returned_coefficients_are_the_quantized_ones(cls):
    conv = CONVS[cls]()
    quantize_(conv, BitPlan(attention=1), renormalize=False)
    _, (_, alpha) = conv(torch.randn(4, 4), EDGES, return_attention_weights=True)
    assert len(alpha.unique()) == 2


def test_attention_without_renormalisation_is_another():
    x, outs = torch.randn(4, 4), []
    for renormalize in (True, False):
        conv = AGNNConv()
        quantize_(conv, BitPlan(attention=2), renormalize=renormalize)
        outs.append(conv(x, EDGES))
    assert not torch.allclose(*outs)


@pytest.mark.parametrize("attention", [8, {"1": 8}])
def test_unknown_attention_is_refused_and_nothing_installed(attention):
    model = nn.ModuleList([GATConv(4, 4), WeighedConv()])
    with pytest.raises(
        ValueError, match=r"1: attention of WeighedConv .* known are GATConv, .*regi"
    ):
        quantize_(model, BitPlan(4, attention=attention))
    assert [type(conv) for conv in model] == [GATConv, WeighedConv]
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert "attention_site" not in vars(model[0])


def test_unknown_attention_stays_at_32_bits():
    model, x = nn.ModuleList([GATConv(4, 4), WeighedConv()]), torch.randn(4, 4)
    quantization = quantize_(model, BitPlan({"1": 4}, attention={"0": 8}))
    torch.testing.assert_close(model[1](x, EDGES), WeighedConv()(Quantizer()(x, 4), EDGES))
    assert type(quantization.remove()[1]) is WeighedConv


def test_a_registered_convolution_is_quantized(registry):
    register_attention(WeighedConv, QuantizedWeighedConv)
    conv, x = WeighedConv(), torch.randn(4, 4)
    expected = conv(x, EDGES)
    quantization = quantize_(conv, BitPlan(attention=8))
    out = conv(x, EDGES)
    assert isinstance(conv, QuantizedWeighedConv)
    assert not torch.equal(out, expected)
    torch.testing.assert_close(out, expected, atol=0.05, rtol=0.05)
    assert torch.equal(pickle.loads(pickle.dumps(conv))(x, EDGES), out)
    assert quantization.sites[1].seen[0].shape == (6, 1)
    assert torch.equal(quantization.remove()(x, EDGES), expected)
    assert type(conv) is WeighedConv


class NotOfTheMixin(GATConv):
    pass


@pytest.mark.parametrize("quantized", [QuantizedWeighedConv, NotOfTheMixin, QuantizedAttention])
def test_a_wrong_class_is_not_registered(registry, quantized):
    message = rf"quantized={quantized.__name__} must derive from QuantizedAttention and GATConv: cl"
    with pytest.raises(TypeError, match=message):
        register_attention(GATConv, quantized)
    assert _REGISTRY[GATConv].__name__ == "QuantizedGATConv"


def test_teaching_a_class_anew_leaves_quantized_modules_removable(registry):
    class Other(_REGISTRY[GATConv]):
        pass

    conv = GATConv(4, 4)
    quantization = quantize_(conv, BitPlan(attention=8))
    register_attention(GATConv, Other)
    assert type(quantization.remove()) is GATConv
