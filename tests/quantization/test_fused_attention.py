import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATConv, GATv2Conv
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csr_tensor

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization import fused_attention, in_degrees, quantize_
from lit_gnncompress.quantization.attention import QuantizedGATConv
from lit_gnncompress.quantization.fused_attention import (
    FusedGATConv,
    FusedQuantizedGATConv,
    fuse_attention,
    unfuse_attention,
)
from lit_gnncompress.quantization.ranges import CalibratedRange
from lit_gnncompress.storage import ledger_of
from tests.quantization.test_contract import (
    BUCKETED,
    EDGES,
    UNIFORM,
    WIDTH,
    AttentionContract,
    TakesSenders,
    outcome,
)

NODES = 40
LAYERS = [
    {},
    {"heads": 3},
    {"heads": 3, "concat": False},
    {"heads": 2, "residual": True, "bias": False},
    {"heads": 2, "add_self_loops": False, "negative_slope": 0.5},
]
PLANS = [
    BitPlan(attention=8),
    BitPlan(attention=1),
    BitPlan(attention=[8, 4], degree_splits=[8]),
    BitPlan(features=4, attention=[32, 2], degree_splits=[8]),
    BitPlan(attention=4, degree_splits=[3, 1000]),  # with a bucket that is empty
]
pytestmark = pytest.mark.filterwarnings("ignore:Sparse")


class TestFusedGATConv(TakesSenders, AttentionContract):
    def create_conv(self):
        return FusedGATConv(WIDTH, WIDTH // 2, heads=2)

    @pytest.mark.parametrize("kind", [UNIFORM, BUCKETED])
    def test_compiles_to_the_same_values_and_gradients(self, conv, x, kind):
        quantize_(conv, self.plan(kind))
        expected = outcome(conv, x, self.edges())
        compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
        actual = outcome(compiled, x, self.edges())  # not fused: equal to rounding
        for a, b in zip(actual, expected[:2], strict=False):
            torch.testing.assert_close(a, b)

    @pytest.mark.parametrize("renormalize", [True, False])
    def test_gradients_pass_straight_through(self, conv, x, renormalize):
        plain = unfuse_attention(copy.deepcopy(conv))
        quantize_(conv, self.plan(), renormalize=renormalize)
        quantize_(plain, self.plan(), renormalize=renormalize)
        expected = outcome(plain, x, self.edges())
        for a, b in zip(outcome(conv, x, self.edges()), expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.fixture
def edge_index():
    return torch.randint(NODES, (2, 300), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def x():
    return torch.randn(NODES, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def calls(monkeypatch):
    """Calls of the kernel."""
    calls, kernel = [], fused_attention.attention_aggregate

    def spy(*args, **options):
        calls.append(options)
        return kernel(*args, **options)

    monkeypatch.setattr(fused_attention, "attention_aggregate", spy)
    return calls


def pair_of(plan=None, quantize=quantize_, fuse_first=False, **options):
    """A layer, and the same fused; both quantized."""
    torch.manual_seed(0)
    plain = GATConv(6, 5, **options)
    fused = copy.deepcopy(plain)
    if fuse_first:
        fuse_attention(fused)
    if plan is not None:
        quantize(plain, plan)
        quantize(fused, plan)
    return plain, fuse_attention(fused)


def assert_alike(plain, fused, *args, **options):
    """Outputs and gradients are equal to rounding."""
    outs = [conv(*args, **options) for conv in (plain, fused)]
    torch.testing.assert_close(outs[1], outs[0])
    grads = [
        torch.autograd.grad(out.square().sum(), list(conv.parameters()), allow_unused=True)
        for out, conv in zip(outs, (plain, fused), strict=True)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(b, a, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("options", LAYERS)
def test_as_unfused(options, x, edge_index, calls):
    assert_alike(*pair_of(**options), x, edge_index)
    assert len(calls) == 1


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("fuse_first", [True, False])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("options", LAYERS[1:3])
def test_as_unfused_when_quantized(options, plan, fuse_first, renormalize, x, edge_index, calls):
    def quantize(conv, plan):
        return quantize_(conv, plan, renormalize=renormalize)

    plain, fused = pair_of(plan, quantize, fuse_first, **options)
    assert_alike(plain, fused, x, edge_index)
    assert len(calls) == 1
    assert calls[0]["alpha_range"] is not None


@pytest.mark.parametrize("plan", PLANS)
def test_the_ledger_is_the_same(plan, x, edge_index):
    books = []
    for conv in pair_of(heads=3):
        quantization = quantize_(conv, plan)
        conv(x, edge_index)
        books.append(ledger_of(quantization))
    assert books[0] == books[1]


@pytest.mark.parametrize("splits", [[], [8]])
def test_static_ranges(splits, x, edge_index, calls):
    plan = BitPlan(attention=4, degree_splits=splits)
    plain, fused = pair_of(plan, lambda *args: quantize_(*args, attention_range="mse"), heads=3)
    before = plain(x, edge_index)
    fused(x, edge_index)
    assert not calls  # such ranges need all coefficients
    ends = torch.tensor([[0.1], [0.2]])[: len(splits) + 1]
    for conv in (plain, fused):
        conv.attention_site.static_range = CalibratedRange(
            ends, ends + 0.5, torch.zeros(len(ends), dtype=torch.bool)
        )
    assert_alike(plain, fused, x, edge_index)
    assert len(calls) == 1
    assert not torch.allclose(plain(x, edge_index), before)


FORMS = {
    "int32": lambda e: e.int(),
    "EdgeIndex": lambda e: EdgeIndex(e, sparse_size=(NODES, NODES)),
    "CSR": lambda e: to_torch_csr_tensor(e.flip(0), size=(NODES, NODES)),
    "COO": lambda e: to_torch_coo_tensor(e.flip(0), size=(NODES, NODES)),
}


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_graph(form, loops, x, edge_index, calls):
    plain, fused = pair_of(heads=2, add_self_loops=loops)
    edge_index = edge_index.unique(dim=1).contiguous()  # a sparse matrix adds up equal edges
    torch.testing.assert_close(fused(x, FORMS[form](edge_index)), plain(x, edge_index))
    assert len(calls) == 1


@pytest.mark.parametrize("channels", [6, (6, 4)])
@pytest.mark.parametrize("size", [None, (NODES, 30)])
def test_pairs(channels, size, x, edge_index, calls):
    plain = GATConv(channels, 5, heads=2, residual=True)
    targets = torch.randn(30, 6 if channels == 6 else 4)
    edge_index = edge_index.clamp(max=29)
    fused = fuse_attention(copy.deepcopy(plain))
    assert_alike(plain, fused, (x, targets), edge_index, size=size)
    assert len(calls) == 1


def test_dropout_is_of_training_and_follows_the_seed(x, edge_index):
    plain, fused = pair_of(heads=2, dropout=0.5)
    torch.manual_seed(3)
    first, second = fused(x, edge_index), fused(x, edge_index)
    torch.manual_seed(3)
    assert torch.equal(fused(x, edge_index), first)
    assert not torch.equal(first, second)
    assert_alike(plain.eval(), fused.eval(), x, edge_index)


def test_dropout_leaves_the_mean(x, edge_index):
    _, fused = pair_of(heads=2, dropout=0.5)
    with torch.no_grad():
        mean = torch.stack([fused(x, edge_index) for _ in range(3000)]).mean(0)
        torch.testing.assert_close(mean, fused.eval()(x, edge_index), atol=0.1, rtol=0)


class Overriding(FusedGATConv):
    def message(self, x_j, alpha):
        return super().message(x_j, alpha) * 2


def hooked(conv):
    conv.register_message_forward_hook(lambda module, inputs, output: output * 2)
    return conv


def explaining(conv):
    conv.explain = True
    conv._edge_mask = torch.linspace(-1, 1, 300)
    return conv


@pytest.mark.parametrize(
    ("options", "change", "of_call"),
    [
        ({"edge_dim": 3}, None, {"edge_attr": torch.ones(300, 3)}),
        ({}, None, {"edge_attr": torch.ones(300, 1)}),
        ({}, None, {"return_attention_weights": True}),
        ({"aggr": "max"}, None, {}),
        ({"flow": "target_to_source"}, None, {}),
        ({}, hooked, {}),
        ({"add_self_loops": False}, explaining, {}),
    ],
)
def test_what_it_does_not_know_is_left_to_the_parent(
    options, change, of_call, x, edge_index, calls
):
    for conv in (pair := pair_of(heads=2, **options)):
        if change is not None:
            change(conv)
    plain, fused = (conv(x, edge_index, **of_call) for conv in pair)
    for a, b in zip(tree_leaves(plain), tree_leaves(fused), strict=True):
        assert torch.equal(a, b)
    assert not calls


def test_a_layer_built_or_unpickled_can_be_explained(x, edge_index):
    built = FusedGATConv(6, 5, add_self_loops=False)
    for conv in (built, fuse_attention(_quantized(GATConv(6, 5, add_self_loops=False)))):
        twin = pickle.loads(pickle.dumps(conv))
        before = conv(x, edge_index)
        explained = explaining(conv)(x, edge_index)
        assert not torch.allclose(explained, before)
        assert torch.equal(explaining(twin)(x, edge_index), explained)


def _quantized(conv):
    quantize_(conv, BitPlan(attention=8))
    return conv


@pytest.mark.parametrize("options", [{"rounding": "stochastic"}, {"attention_range": "mse"}])
def test_other_quantizers_are_left_to_the_parent(options, x, edge_index, calls):
    convs = pair_of(BitPlan(attention=4), lambda *args: quantize_(*args, **options), heads=2)
    outs = []
    for conv in convs:
        torch.manual_seed(0)
        outs.append(conv(x, edge_index))
    assert torch.equal(*outs)
    assert not calls


def test_subclasses_and_other_precisions_are_left_to_the_parent(x, edge_index, calls):
    torch.manual_seed(0)
    conv = Overriding(6, 5)
    torch.testing.assert_close(conv(x, edge_index), 2 * fuse_attention(_plain(conv))(x, edge_index))
    assert len(calls) == 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        FusedGATConv(6, 5)(x, edge_index)
    FusedGATConv(6, 5).double()(x.double(), edge_index)
    assert len(calls) == 1


def _plain(conv):
    twin = copy.deepcopy(conv)
    twin.__class__ = GATConv
    twin.bias.data.zero_()
    conv.bias.data.zero_()
    return twin


def test_layers_are_fused_and_unfused_in_place(x, edge_index):
    model = nn.ModuleList([GATConv(6, 5), GATv2Conv(6, 5), GATConv(6, 5)])
    quantization = quantize_(model, BitPlan(attention={"0": 8}))
    fuse_attention(model)
    assert type(model[0]) is type(model[2]) is FusedQuantizedGATConv
    twin = pickle.loads(pickle.dumps(model))
    assert torch.equal(twin[0](x, edge_index), model[0](x, edge_index))
    unfuse_attention(model)
    assert type(model[0]) is QuantizedGATConv
    fuse_attention(model)
    quantization.remove()
    assert [type(conv) for conv in model] == [GATConv, GATv2Conv, GATConv]


def test_unfused_it_leaves_no_trace():
    conv = fuse_attention(GATConv(6, 5))
    quantization = quantize_(conv, BitPlan(attention=8))
    unfuse_attention(conv)
    assert type(quantization.remove()) is GATConv


def test_edges_are_sorted_once_and_forgotten_with_their_tensor(x, edge_index, monkeypatch):
    sorted_edges, sort = [], fused_attention._sort

    def sort_and_note(*args):
        adjacency = sort(*args)
        sorted_edges.append(weakref.ref(adjacency))
        return adjacency

    monkeypatch.setattr(fused_attention, "_sort", sort_and_note)
    conv = FusedGATConv(6, 5)
    for _ in range(3):
        conv(x, edge_index)
    assert len(sorted_edges) == 1
    before = conv(x, edge_index)
    edge_index[0, 0] = (edge_index[0, 0] + 1) % NODES
    assert not torch.equal(conv(x, edge_index), before)  # written to
    mine = edge_index.clone()
    conv(x, mine)
    del mine
    gc.collect()
    assert [each() is not None for each in sorted_edges] == [False, True, False]


def test_edges_of_inference_serve_training(x, edge_index):
    conv = FusedGATConv(6, 5)
    with torch.inference_mode():
        conv(x, edge_index)
        conv(x, edge_index.clone())
    conv(x, edge_index).sum().backward()


def test_an_edge_to_nowhere_is_refused(x):
    with pytest.raises(IndexError, match="40"):
        FusedGATConv(6, 5)(x, torch.tensor([[0], [NODES]]))
    with pytest.raises(IndexError, match="40"):
        FusedGATConv(6, 5)(x, torch.tensor([[NODES], [0]]))


class Largest(TorchDispatchMode):
    """Remembers the size of the largest result."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.untyped_storage().nbytes() // 4)
        return out


@pytest.mark.parametrize("plan", [None, *PLANS[:4]])
def test_nothing_as_large_as_the_edges_is_allocated(plan, x):
    edges, heads = 20_000, 8
    edge_index = torch.randint(NODES, (2, edges))
    conv = FusedGATConv(6, 5, heads=heads)
    if plan is not None:
        quantize_(conv, plan).publish(NODES, in_degrees(edge_index, NODES))
    conv(x, edge_index)  # sorts
    sizes = []
    for grad in (False, True):
        with Largest() as largest, torch.set_grad_enabled(grad):
            out = conv(x, edge_index)
            if grad:
                out.sum().backward()
        sizes.append(largest.size)
    assert sizes[0] < edges / 4
    assert sizes[1] < edges * heads / 2  # the edges by source are sorted, which takes 3 E


def test_the_contract_runs_the_kernel(calls):
    FusedGATConv(WIDTH, WIDTH // 2, heads=2)(torch.randn(7, WIDTH), EDGES)
    assert len(calls) == 1
