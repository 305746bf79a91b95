"""What quantization promises, for every convolution: one contract, a subclass for each."""

import copy
import io
import pickle
import sys

import pytest
import torch
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.explain.algorithm.utils import set_masks
from torch_geometric.nn import (
    AGNNConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GraphConv,
    SAGEConv,
    SuperGATConv,
    TransformerConv,
)
from torch_geometric.utils import scatter, softmax, to_torch_csr_tensor

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization import Quantizer, quantize_
from lit_gnncompress.quantization.quantize import remove_quantization

WIDTH, NODES = 8, 7
# In-degrees 1, 2, 3, 1, 2, 1, 0: two buckets at a split of 2.
EDGES = torch.tensor([[1, 0, 2, 1, 3, 6, 2, 3, 5, 4], [0, 1, 1, 2, 2, 2, 3, 4, 4, 5]])
FORMS = {
    "EdgeIndex": lambda: EdgeIndex(EDGES, sparse_size=(NODES, NODES), sort_order="col"),
    "sparse CSR": lambda: to_torch_csr_tensor(EDGES.flip(0), size=(NODES, NODES)),
}
pytestmark = pytest.mark.filterwarnings("ignore:Sparse")
UNIFORM, BUCKETED = "uniform", "bucketed"


class TwoConvs(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.convs = nn.ModuleList([first, second])

    def forward(self, x, edge_index, **edges):
        return self.convs[1](self.convs[0](x, edge_index, **edges).relu(), edge_index, **edges)


class ConvContract:
    """What any quantized convolution does; a subclass supplies one that keeps the width."""

    attention = False
    random_in_training = False

    def create_conv(self):
        raise NotImplementedError

    def edges(self):
        """What the convolution takes about edges, besides ``edge_index``."""
        return {}

    def edges_beside_sparse(self):
        return {}

    def plan(self, kind=UNIFORM):
        if kind == UNIFORM:
            return BitPlan(features=3, attention=4 if self.attention else 32)
        attention = [4, 2] if self.attention else 32
        return BitPlan(features=[4, 2], attention=attention, degree_splits=[2])

    @pytest.fixture
    def conv(self):
        torch.manual_seed(0)
        return self.create_conv().train(not self.random_in_training)

    @pytest.fixture
    def model(self, conv):
        torch.manual_seed(1)
        return TwoConvs(conv, self.create_conv()).train(conv.training)

    @pytest.fixture
    def x(self):
        torch.manual_seed(2)
        return torch.randn(NODES, WIDTH)

    def test_32_bits_change_nothing(self, model, x):
        expected = outcome(model, x, self.edges())
        quantize_(model, BitPlan())
        assert_identical(outcome(model, x, self.edges()), expected)

    @pytest.mark.parametrize("kind", [UNIFORM, BUCKETED])
    def test_switched_off_it_changes_nothing_and_on_it_does(self, model, x, kind):
        expected = outcome(model, x, self.edges())
        quantization = quantize_(model, self.plan(kind))
        assert not torch.equal(model(x, EDGES, **self.edges()), expected[0])
        quantization.enabled = False
        assert_identical(outcome(model, x, self.edges()), expected)

    @pytest.mark.parametrize("renormalize", [True, False])
    def test_gradients_pass_straight_through(self, conv, x, renormalize, monkeypatch):
        plain = copy.deepcopy(conv)
        quantize_(conv, self.plan(), renormalize=renormalize)
        actual = outcome(conv, x, self.edges())
        if self.attention:
            reference = quantized_softmax(4, renormalize)
            monkeypatch.setattr(sys.modules[type(plain).__module__], "softmax", reference)
        expected = outcome(lambda x, *a, **k: plain(rounded(x, 3), *a, **k), x, self.edges())
        torch.testing.assert_close(actual[:2], expected[:2])

    @pytest.mark.parametrize("kind", [UNIFORM, BUCKETED])
    def test_compiles_to_the_same_values_and_gradients(self, conv, x, kind):
        quantize_(conv, self.plan(kind))
        expected = outcome(conv, x, self.edges())
        compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
        assert_identical(outcome(compiled, x, self.edges()), expected[:2])

    def test_a_copy_is_quantized_and_independent(self, model, x):
        quantization = quantize_(model, self.plan(BUCKETED))
        expected = model(x, EDGES, **self.edges())
        twin = copy.deepcopy(model)
        quantization.remove()
        assert torch.equal(twin(x, EDGES, **self.edges()), expected)
        remove_quantization(twin)
        assert torch.equal(twin(x, EDGES, **self.edges()), model(x, EDGES, **self.edges()))

    @pytest.mark.parametrize("how", ["pickle", "torch.save"])
    def test_a_saved_module_comes_back_quantized(self, model, x, how):
        quantize_(model, self.plan(BUCKETED))
        expected = model(x, EDGES, **self.edges())
        if how == "pickle":
            twin = pickle.loads(pickle.dumps(model))
        else:
            file = io.BytesIO()
            torch.save(model, file)
            twin = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
        assert torch.equal(twin(x, EDGES, **self.edges()), expected)
        remove_quantization(twin)
        assert looks(twin) == looks(remove_quantization(model))

    def test_weights_load_with_and_without_quantization(self, model, x):
        plain = copy.deepcopy(model)
        quantize_(model, self.plan())
        model(x, EDGES, **self.edges())
        state = model.state_dict()
        assert list(state) == list(plain.state_dict())
        plain.load_state_dict(state)
        model.load_state_dict(plain.state_dict())
        assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())

    def test_removed_it_leaves_no_trace(self, model, x):
        before, expected = looks(model), outcome(model, x, self.edges())
        quantization = quantize_(model, self.plan(BUCKETED))
        model(x, EDGES, **self.edges())
        assert quantization.remove() is model
        assert looks(model) == before
        assert_identical(outcome(model, x, self.edges()), expected)

    def test_only_what_depends_on_a_site_changes(self, model, x):
        hidden, out = [], model(x, EDGES, **self.edges())
        model.convs[0].register_forward_hook(lambda _, __, output: hidden.append(output))
        model(x, EDGES, **self.edges())
        quantize_(model, BitPlan(features={"convs.1": 2}))
        changed = model(x, EDGES, **self.edges())
        assert torch.equal(*hidden)
        assert not torch.equal(changed, out)

    def test_features_may_come_by_keyword(self, conv, x):
        quantize_(conv, self.plan(BUCKETED))
        expected = conv(x, EDGES, **self.edges())
        assert torch.equal(conv(edge_index=EDGES, x=x, **self.edges()), expected)

    @pytest.mark.parametrize("kind", [UNIFORM, BUCKETED])
    @pytest.mark.parametrize("form", ["EdgeIndex", "sparse CSR"])
    def test_all_forms_of_the_graph_give_the_same(self, conv, x, kind, form):
        edges = self.edges() if form == "EdgeIndex" else self.edges_beside_sparse()
        quantize_(conv, self.plan(kind))
        actual = conv(x, FORMS[form](), **edges)
        torch.testing.assert_close(actual, conv(x, EDGES, **edges))

    def test_explainers_see_into_a_layer_and_its_copy(self, conv, x):
        quantize_(conv, self.plan())
        before = conv(x, EDGES, **self.edges())
        mask = nn.Parameter(torch.linspace(-1, 1, EDGES.size(1)))
        explained = []
        for layer in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)), conv):
            set_masks(layer, mask, EDGES)
            explained.append(layer(x, EDGES, **self.edges()))
        assert not torch.allclose(explained[0], before)
        torch.testing.assert_close(explained[1:], [explained[0]] * 2)


class TakesPairs:
    """Mixin for convolutions of bipartite graphs: features of those that send and receive."""

    def test_pairs_are_quantized_each_on_its_own(self, conv, x):
        self.check_pair(conv, x[:6], x[2:] / 3)

    def test_nodes_that_send_and_receive_are_quantized_once(self, conv, x):
        self.check_pair(conv, x, x)

    def check_pair(self, conv, senders, receivers):
        plain, edges = copy.deepcopy(conv), EDGES.clamp(max=4)
        quantize_(conv, BitPlan(features=3))
        expected = plain((rounded(senders, 3), rounded(receivers, 3)), edges, **self.edges())
        assert torch.equal(conv((senders, receivers), edges, **self.edges()), expected)

    def test_degrees_of_pairs_are_of_sending_and_of_receiving(self, conv, x):
        self.check_degrees(conv, x[:6], x[2:6] / 3)

    def check_degrees(self, conv, senders, receivers):
        # Node 1 sends twice, nodes 0 and 1 receive twice: they stay as they are.
        plain, edges = copy.deepcopy(conv), torch.tensor([[0, 1, 1, 2, 5], [0, 0, 1, 1, 2]])
        about = {name: value[:5] for name, value in self.edges().items()}
        plan = BitPlan(features=[1, 32], degree_splits=[2])
        quantize_(conv, plan, range="minmax", granularity="bucket")
        expected = plain(
            (rounded_but([1], senders), rounded_but([0, 1], receivers)), edges, **about
        )
        torch.testing.assert_close(conv((senders, receivers), edges, **about), expected)


class TakesSenders(TakesPairs):
    """Mixin for those that can do without the features of the receivers."""

    def test_receivers_may_have_no_features(self, conv, x):
        self.check_pair(conv, x[:6], None)

    def test_degrees_of_senders_are_of_sending(self, conv, x):
        self.check_degrees(conv, x[:6], None)


class TestGCNConv(ConvContract):
    def create_conv(self):
        return GCNConv(WIDTH, WIDTH)

    def edges(self):
        return {"edge_weight": torch.linspace(0.5, 1.5, EDGES.size(1))}


class TestSAGEConv(TakesSenders, ConvContract):
    def create_conv(self):
        return SAGEConv(WIDTH, WIDTH)


class TestGINConv(TakesSenders, ConvContract):
    def create_conv(self):
        return GINConv(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)))


class TestGraphConv(TakesSenders, ConvContract):
    def create_conv(self):
        return GraphConv(WIDTH, WIDTH)

    def edges(self):
        return {"edge_weight": torch.linspace(0.5, 1.5, EDGES.size(1))}


class AttentionContract(ConvContract):
    attention = True


class EdgeAttributes:
    """Mixin for convolutions whose attention looks at edge attributes."""

    def edges(self):
        return {"edge_attr": torch.linspace(-1, 1, 2 * EDGES.size(1)).view(-1, 2)}


class TestGATConv(TakesSenders, AttentionContract):
    def create_conv(self):
        return GATConv(WIDTH, WIDTH // 2, heads=2)


class TestGATConvWithEdges(EdgeAttributes, TestGATConv):
    def create_conv(self):
        return GATConv(WIDTH, WIDTH, heads=2, concat=False, edge_dim=2, add_self_loops=False)


class TestGATv2Conv(EdgeAttributes, TakesPairs, AttentionContract):
    def create_conv(self):
        return GATv2Conv(WIDTH, WIDTH // 2, heads=2, edge_dim=2)


class TestAGNNConv(AttentionContract):
    def create_conv(self):
        return AGNNConv()


class TestTransformerConv(EdgeAttributes, TakesPairs, AttentionContract):
    def create_conv(self):
        return TransformerConv(WIDTH, WIDTH // 2, heads=2, edge_dim=2)

    def edges_beside_sparse(self):
        return self.edges()


class TestSuperGATConv(AttentionContract):
    random_in_training = True  # it samples edges that do not exist

    def create_conv(self):
        return SuperGATConv(WIDTH, WIDTH // 2, heads=2)


# --- helpers ------------------------------------------------------------------------------------


def outcome(module, x, edges):
    """Output, gradient of the features, and gradients of the weights."""
    x = x.clone().requires_grad_()
    out = module(x, EDGES, **edges)
    (out * torch.arange(out.numel()).view_as(out)).sum().backward()
    grads = []
    for parameter in module.parameters() if isinstance(module, nn.Module) else ():
        grads.append(None if parameter.grad is None else parameter.grad.clone())
        parameter.grad = None
    return out.detach(), x.grad, *grads


def assert_identical(actual, expected):
    for a, b in zip(actual, expected, strict=False):
        assert a is b is None or torch.equal(a, b)


def looks(module):
    """All that can be seen of a module and its parts, apart from values of tensors."""
    return [
        (name, type(part), sorted(part.__dict__), len(part._forward_pre_hooks),
         len(part._forward_pre_hooks_with_kwargs))
        for name, part in module.named_modules()
    ]  # fmt: skip


def straight_through(values, quantized):
    return quantized + (values - values.detach())  # exactly `quantized`, since v − v is 0


def rounded(x, bits):
    return None if x is None else straight_through(x, Quantizer()(x.detach(), bits))


def rounded_but(kept, x):
    """The 1-bit values of all rows but a few, which stay as they are."""
    if x is None:
        return None
    rest = [node for node in range(len(x)) if node not in kept]
    quantizer = Quantizer(range="minmax", granularity="tensor")
    return x.index_copy(0, torch.tensor(rest), quantizer(x[rest], 1))


def quantized_softmax(bits, renormalize):
    """What takes the place of PyG's softmax in an unquantized convolution."""

    def reference(src, index, ptr=None, num_nodes=None, dim=0):
        alpha = softmax(src, index, ptr, num_nodes, dim)
        levels, lo, hi = 2**bits - 1, alpha.min().detach(), alpha.max().detach()
        codes = ((alpha.detach() - lo) / ((hi - lo) / levels)).round()
        out = straight_through(alpha, codes * ((hi - lo) / levels) + lo)
        if not renormalize:
            return out
        return out / scatter(out, index, 0, num_nodes, "sum")[index]

    return reference
