import copy
import pickle

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.nn import (
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GraphConv,
    SAGEConv,
    TransformerConv,
)

from lit_gnncompress.models.agnn import AGNN
from lit_gnncompress.storage.deferred import Aggregated
from lit_gnncompress.storage.edges import adjacency_of
from lit_gnncompress.storage.messages import EdgeRows
from lit_gnncompress.storage.node_rows import NodeRows, node_rows

NODES, EDGES, WIDTH = 40, 400, 24
torch.manual_seed(0)
EDGE_INDEX = torch.randint(NODES - 1, (2, EDGES))  # the last node has no edges
X = torch.randn(NODES, WIDTH)


def conv_of(name):
    torch.manual_seed(1)
    return {
        "gcn": lambda: GCNConv(WIDTH, 8),
        "gcn without bias": lambda: GCNConv(WIDTH, 8, bias=False),
        "sage": lambda: SAGEConv(WIDTH, 8),
        "sage, wider": lambda: SAGEConv(WIDTH, 32),
        "sage, max": lambda: SAGEConv(WIDTH, 8, aggr="max"),
        "sage, sum": lambda: SAGEConv(WIDTH, 8, aggr="sum"),
        "gin": lambda: GINConv(torch.nn.Linear(WIDTH, 8)),
        "graph": lambda: GraphConv(WIDTH, 8),
        "gat": lambda: GATConv(WIDTH, 4, heads=3),
        "gat, mean of heads": lambda: GATConv(WIDTH, 4, heads=3, concat=False),
        "gatv2": lambda: GATv2Conv(WIDTH, 4, heads=3),
        "transformer": lambda: TransformerConv(WIDTH, 4, heads=3),
        "agnn": lambda: AGNN(WIDTH, 16, 3, out_channels=8, dropout=0.0),
    }[name]()


CONVS = (
    "gcn", "gcn without bias", "sage", "sage, wider", "sage, max", "sage, sum", "gin", "graph",
    "gat", "gat, mean of heads", "gatv2", "transformer", "agnn",
)  # fmt: skip
MESSAGE_FREE = {"gcn", "gcn without bias", "sage", "sage, wider", "sage, max", "sage, sum", "gin",
                "graph"}  # fmt: skip


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that is made, views of one value aside."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(made, torch.Tensor) and made.layout == torch.strided:
                self.elements = max(self.elements, made.untyped_storage().nbytes() // 4)
        return out


def gradients(conv, x, edges):
    conv.zero_grad()
    x = x.clone().requires_grad_()
    features = x if edges is None else node_rows(x)
    out = conv(features, EDGE_INDEX if edges is None else edges)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [x.grad, *(p.grad for p in conv.parameters())]


@pytest.mark.parametrize("name", CONVS)
def test_layers_compute_the_same(name):
    conv = conv_of(name)
    expected = conv(X, EDGE_INDEX)
    out = conv(node_rows(X), EDGE_INDEX)
    torch.testing.assert_close(out + 0, expected, rtol=1e-5, atol=1e-6, check_dtype=True)


@pytest.mark.parametrize("name", CONVS)
def test_gradients_are_the_same(name):
    conv = conv_of(name)
    expected = gradients(conv, X, None)
    for ours, theirs in zip(gradients(conv, X, EDGE_INDEX), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(MESSAGE_FREE))
@pytest.mark.parametrize("training", [False, True])
def test_no_message_of_every_edge_is_made(name, training):
    conv = conv_of(name)
    x = node_rows(X.clone().requires_grad_(training))
    with torch.set_grad_enabled(training), Largest() as largest:
        out = conv(x, EDGE_INDEX) + 0
        if training:
            out.sum().backward()
    assert largest.elements < EDGES * 8


@pytest.mark.parametrize("name", ["gcn", "sage", "sage, max", "gin", "graph"])
def test_sparse_adjacencies_are_used(name):
    conv = conv_of(name)
    edges = EDGE_INDEX[:, EDGE_INDEX[0] != EDGE_INDEX[1]]
    size = (NODES, NODES)
    coalesced = torch.sparse_coo_tensor(edges.flip(0), edges[0] + 1.0, size).coalesce()
    edge_index = coalesced.indices().flip(0)
    adj_t = torch.sparse_coo_tensor(coalesced.indices(), torch.ones(edge_index.size(1)), size)
    adj_t = adj_t.to_sparse_csr()
    expected = conv(X, edge_index)
    torch.testing.assert_close(conv(node_rows(X), adj_t) + 0, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "divisor", [2.0, torch.tensor(2.0), torch.tensor([2.0]), torch.rand(NODES, 1)]
)
def test_a_scaled_sum_and_a_linear_layer_change_places(divisor):
    adjacency = adjacency_of(EDGE_INDEX[0], EDGE_INDEX[1], NODES, NODES)
    weight = torch.randn(4, WIDTH)
    expected = (Aggregated(X, adjacency).materialize() / divisor) @ weight.t()
    found = torch.nn.functional.linear(Aggregated(X, adjacency) / divisor, weight)
    torch.testing.assert_close(found + 0, expected, rtol=1e-5, atol=1e-5)


def test_bipartite_layers_work():
    conv = conv_of("sage")
    targets = torch.randn(7, WIDTH)
    edges = torch.stack([EDGE_INDEX[0], EDGE_INDEX[1] % 7])
    expected = conv((X, targets), edges)
    out = conv((node_rows(X), node_rows(targets)), edges)
    torch.testing.assert_close(out + 0, expected, rtol=1e-5, atol=1e-6)


def test_no_edges_and_no_nodes():
    conv = conv_of("sage")
    none = torch.empty(2, 0, dtype=torch.long)
    torch.testing.assert_close(conv(node_rows(X), none) + 0, conv(X, none))
    assert (conv(node_rows(X[:0]), none) + 0).shape == (0, 8)


def test_an_edge_index_that_changes_is_sorted_anew():
    conv, edges = conv_of("sage"), EDGE_INDEX.clone()
    conv(node_rows(X), edges)
    edges[1, :50] = 3
    torch.testing.assert_close(conv(node_rows(X), edges) + 0, conv(X, edges), rtol=1e-5, atol=1e-6)


def test_results_of_other_nodes_are_plain():
    rows = node_rows(X)
    assert type(rows[:3]) is torch.Tensor
    assert type(rows.sum()) is torch.Tensor
    assert type(rows.argmax(1)) is torch.Tensor
    assert type(rows.relu()) is NodeRows
    assert type(rows[torch.arange(NODES) > 3]) is torch.Tensor


def test_node_rows_pickle_and_copy():
    rows = node_rows(X)
    assert type(pickle.loads(pickle.dumps(rows))) is torch.Tensor
    assert torch.equal(copy.deepcopy(rows), X)


def edge_rows(weight=None):
    return EdgeRows(X, EDGE_INDEX[0], weight)


def test_other_operations_get_the_rows():
    rows = edge_rows()
    assert rows.shape == (EDGES, WIDTH)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows + 1, X[EDGE_INDEX[0]] + 1)
    torch.testing.assert_close(torch.cat([rows, rows]).sum(), 2 * X[EDGE_INDEX[0]].sum())
    assert torch.equal(pickle.loads(pickle.dumps(rows)), X[EDGE_INDEX[0]])


def test_weights_multiply():
    weight = torch.rand(EDGES, 1)
    rows = 2 * (weight * edge_rows() * weight)
    expected = 2 * weight * weight * X[EDGE_INDEX[0]]
    torch.testing.assert_close(rows + 0, expected)


def test_a_sum_that_waits_keeps_the_grad_mode_that_it_was_made_in():
    x = X.clone().requires_grad_()
    conv = conv_of("gcn without bias")
    with torch.no_grad():
        out = conv(node_rows(x), EDGE_INDEX)
    assert isinstance(out, Aggregated)
    assert not out.requires_grad
    assert not (out + 0).requires_grad


def test_sums_do_not_see_later_weights():
    conv = conv_of("gcn")
    with torch.no_grad():
        expected = conv(X, EDGE_INDEX)
        out = conv(node_rows(X), EDGE_INDEX)
        for parameter in conv.parameters():
            parameter.zero_()
    torch.testing.assert_close(out + 0, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_a_sum_takes_operands_of_other_types(dtype):
    operand = torch.ones(NODES, 8, dtype=dtype)
    with torch.no_grad():
        expected = conv_of("gcn")(X, EDGE_INDEX) + operand
        out = conv_of("gcn")(node_rows(X, again=X.clone), EDGE_INDEX) + operand + 0
    assert out.dtype == expected.dtype
    torch.testing.assert_close(out + 0, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop", [1, 7, NODES])
@pytest.mark.parametrize(
    "activation",
    [torch.nn.ReLU(), torch.nn.ELU(0.5), torch.nn.LeakyReLU(0.3), torch.nn.Tanh()],
    ids=str,
)
def test_rows_of_a_sum_one_block_at_a_time(activation, stop):
    conv = conv_of("gcn")
    rows = node_rows(X, again=X.clone)
    with torch.no_grad():
        expected = activation(conv(X, EDGE_INDEX))
        before = conv(rows, EDGE_INDEX)
        out = activation(before)
        assert isinstance(out, Aggregated)
        blocks = [out.rows(i, min(i + stop, NODES)) for i in range(0, NODES, stop)]
        torch.testing.assert_close(torch.cat(blocks), expected, rtol=1e-5, atol=1e-6)
        out.release()
        assert out._source is None
        torch.testing.assert_close(out + 0, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(before + 0, conv(X, EDGE_INDEX), rtol=1e-5, atol=1e-6)
