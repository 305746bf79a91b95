import gc

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN, GCNConv, HGTConv, MessagePassing, SAGEConv

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization import Quantizer, quantize_
from lit_gnncompress.storage import pack
from tests.quantization.test_sites import EDGES, Model


@pytest.fixture
def ranges(monkeypatch):
    """The rows of all matrices that a range was looked for."""
    rows, original = [], Quantizer.find_range

    def find_range(self, x, *args):
        rows.append(x.size(0))
        return original(self, x, *args)

    monkeypatch.setattr(Quantizer, "find_range", find_range)
    return rows


def static_of(quantization):
    """What the first site keeps of inputs that may recur."""
    return quantization.sites[0]._static


def test_a_linear_layer_of_graphs_is_left_alone_once_nodes_are_known(ranges):
    quantization = quantize_(Model(), BitPlan(4))
    quantization.publish(num_nodes=4)
    quantization.module(torch.randn(4, 5), EDGES)
    assert ranges == [4, 4]
    assert [len(site.seen) for site in quantization.sites] == [1, 1, 0]


def test_an_input_is_quantized_once_until_it_changes(ranges):
    x, conv = torch.randn(4, 5), SAGEConv(5, 5)
    quantize_(conv, BitPlan(3))
    outs = [conv(x, EDGES) for _ in range(3)]
    assert len(ranges) == 1
    assert torch.equal(outs[0], outs[2])
    x.mul_(2)
    changed = conv(x, EDGES)
    assert len(ranges) == 2
    assert torch.equal(changed, conv(x.clone(), EDGES))


def test_both_inputs_of_a_pair_are_quantized_once(ranges):
    senders, receivers, conv = torch.randn(4, 5), torch.randn(3, 5), SAGEConv(5, 5)
    quantize_(conv, BitPlan(3))
    for _ in range(3):
        conv((senders, receivers), EDGES.clamp(max=2))
    assert ranges == [4, 3]


def test_an_input_is_quantized_again_for_another_graph(ranges):
    x, conv = torch.randn(4, 5), SAGEConv(5, 5)
    quantize_(conv, BitPlan([1, 8], degree_splits=[2]))
    first = conv(x, EDGES)
    conv(x, EDGES.clone())
    assert len(ranges) == 1
    conv(x, EDGES.flip(0))
    assert len(ranges) == 2
    assert torch.equal(conv(x, EDGES), first)


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("grad", [True, False])
def test_nothing_is_kept_of_an_input_that_died(passes, grad):
    x = torch.randn(4, 5)
    quantization = quantize_(SAGEConv(5, 5), BitPlan(3))
    with torch.set_grad_enabled(grad):
        for _ in range(passes):
            quantization.module(x, EDGES)
    assert len(static_of(quantization)) == 1
    del x
    gc.collect()
    assert len(static_of(quantization)) == 0


def test_hidden_features_in_training_are_not_kept(ranges):
    quantization = quantize_(GCN(5, 5, num_layers=2), BitPlan(3))
    x = torch.randn(4, 5)
    for _ in range(2):
        quantization.module(x, EDGES).sum().backward()
    assert len(ranges) == 3
    assert len(quantization.sites[1]._static) == 0


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_what_was_quantized_in_evaluation_serves_training(context):
    x, conv = torch.randn(4, 5), SAGEConv(5, 5)
    quantize_(conv, BitPlan([3, 5], degree_splits=[2]))
    with context():
        expected = conv(x, EDGES)
    out = conv(x, EDGES)
    out.sum().backward()
    assert torch.equal(out, expected)
    assert all(p.grad is not None for p in conv.parameters())


def test_an_input_that_comes_to_need_a_gradient_gets_it():
    x, conv = torch.randn(4, 5), SAGEConv(5, 5)
    quantize_(conv, BitPlan(3))
    conv(x, EDGES)
    conv(x.requires_grad_(), EDGES).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_features_that_are_not_finite_are_refused(value, requires_grad):
    model, x = Model(), torch.randn(4, 5)
    x[2, 3] = value
    quantize_(model, BitPlan({"conv": 4}))
    with pytest.raises(ValueError, match=rf"conv: .* row 2, column 3 is {value}.*nan_to_num"):
        model(x.requires_grad_(requires_grad), EDGES)


def test_large_features_are_finite():
    x = torch.full((4, 5), 6e4, dtype=torch.half)  # their sum is not
    assert torch.isfinite(x.sum()).item() is False
    conv = SAGEConv(5, 5, bias=False).half()
    quantize_(conv, BitPlan(4))
    conv(x, EDGES)


def test_features_that_are_integers_are_refused():
    conv = nn.ModuleDict({"conv": SAGEConv(5, 5)})
    quantize_(conv, BitPlan(4))
    with pytest.raises(TypeError, match=r"conv: features are torch.int64.*x.float\(\).* 32 bits"):
        conv["conv"](torch.ones(4, 5, dtype=torch.long), EDGES)


def test_sparse_features_are_packed_first():
    x, conv = (torch.rand(4, 5) < 0.5).float(), nn.ModuleDict({"conv": GCNConv(5, 3)})
    quantize_(conv, BitPlan(8))
    with pytest.raises(TypeError, match=r"conv: features are torch.sparse_csr.*pack\(data.x"):
        conv["conv"](x.to_sparse_csr(), EDGES)
    packed = conv["conv"](pack(x.to_sparse_csr(), bits=8), EDGES)
    torch.testing.assert_close(packed, conv["conv"](x, EDGES))


def test_a_linear_layer_needs_to_be_told_degrees():
    quantization = quantize_(Model(), BitPlan({"lin": [8, 1]}, degree_splits=[2]))
    model, x = quantization.module, torch.randn(4, 5)
    with pytest.raises(RuntimeError, match=r"lin: .*degrees of its 4 rows.*publish.*or give lin"):
        model(x, EDGES)
    quantization.publish(4, EDGES[1].bincount(minlength=4))
    model(x, EDGES)
    assert quantization.sites[1].seen[0].buckets.counts().tolist() == [3, 1]


@pytest.mark.parametrize("bits", [32, 4])
def test_a_linear_layer_with_one_number_of_bits_need_not(bits):
    quantization = quantize_(Model(), BitPlan({"conv": [8, 1], "lin": bits}, degree_splits=[2]))
    quantization.module(torch.randn(4, 5), EDGES)
    assert quantization.sites[1].seen[0].buckets is None


@pytest.mark.parametrize("bits", [3, [3, 5]])
def test_stacked_features_share_one_number_of_bits(bits):
    conv, x = SAGEConv(5, 5), torch.randn(2, 4, 5)
    quantize_(conv, BitPlan(bits, degree_splits=[2] if isinstance(bits, list) else []))
    if bits == 3:
        assert conv(x, EDGES).shape == (2, 4, 5)
        return
    with pytest.raises(NotImplementedError, match=r"shape \(N, F\), got \(2, 4, 5\). Give .*one"):
        conv(x, EDGES)


def test_features_by_node_type():
    """HGTConv takes a mapping of features; each type is quantized on its own."""
    torch.manual_seed(0)
    metadata = (["a", "b"], [("a", "to", "b"), ("b", "to", "a")])
    conv = HGTConv(6, 8, metadata)
    x = {"a": torch.rand(5, 6), "b": torch.rand(7, 6)}
    edges = {
        ("a", "to", "b"): torch.tensor([[0, 1, 4], [2, 6, 0]]),
        ("b", "to", "a"): torch.tensor([[1, 5], [3, 0]]),
    }
    expected = conv({name: Quantizer()(value, 2) for name, value in x.items()}, edges)
    quantization = quantize_(conv, BitPlan(features=2))
    out = conv(x, edges)
    for node_type in x:
        torch.testing.assert_close(out[node_type], expected[node_type])
    assert [seen.shape[0] for seen in quantization.sites[0].seen] == [5, 7]


def test_a_layer_that_writes_to_its_input_does_not_spoil_the_kept_one():
    class Writes(MessagePassing):
        def forward(self, x, edge_index):
            return self.propagate(edge_index, x=x.mul_(2))

    conv, x, edges = Writes(), torch.rand(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])
    quantize_(conv, BitPlan(features=4))
    first = conv(x, edges).clone()
    assert torch.equal(conv(x, edges), first)


def test_evaluation_between_steps_with_dropout_quantizes_its_input_once(ranges):
    model, x = Model(), torch.rand(4, 5)
    quantize_(model, BitPlan(features={"conv": 4}))
    for _ in range(3):
        model(torch.dropout(x, 0.5, train=True), EDGES)
        model(x, EDGES)
    assert len(ranges) == 3 + 1
