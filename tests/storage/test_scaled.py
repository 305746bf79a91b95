import pickle

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.nn import GINConv

from lit_gnncompress.storage import PackedTensor, pack
from lit_gnncompress.storage.deferred import Aggregated
from lit_gnncompress.storage.edges import adjacency_of
from lit_gnncompress.storage.scaled import Scaled

pytestmark = pytest.mark.usefixtures("no_unpacking")

NODES, EDGES, WIDTH = 3000, 9000, 24
torch.manual_seed(0)
EDGE_INDEX = torch.randint(NODES, (2, EDGES))
X = pack(torch.randn(NODES, WIDTH), bits=4)


def gin(out_channels, eps=0.25, train_eps=False, **options):
    torch.manual_seed(1)
    return GINConv(torch.nn.Linear(WIDTH, out_channels), eps, train_eps, **options)


@pytest.mark.parametrize("factor", [2, 0.5, torch.tensor(3.0), torch.tensor([0.25])])
def test_a_number_times_packed_features_is_a_promise(factor):
    for scaled in (factor * X, X * factor, torch.mul(X, factor)):
        assert isinstance(scaled, Scaled)
        assert scaled.shape == X.shape
        assert scaled.dtype == torch.float32
        assert torch.equal(scaled.materialize(), factor * X.dequantize())
        assert torch.equal(scaled.rows(3, 9), factor * X.dequantize()[3:9])
        assert torch.equal(pickle.loads(pickle.dumps(scaled)), factor * X.dequantize())


def test_a_linear_layer_takes_it():
    weight, bias = torch.randn(5, WIDTH), torch.randn(5)
    expected = F.linear(0.5 * X.dequantize(), weight, bias)
    torch.testing.assert_close(F.linear(0.5 * X, weight, bias), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.unpacks
@pytest.mark.parametrize(
    "factor", [torch.rand(WIDTH), torch.rand(NODES, 1), torch.tensor(2).double()]
)
def test_other_factors_dequantize(factor):
    assert not isinstance(X * factor, Scaled)
    torch.testing.assert_close(X * factor, X.dequantize() * factor)


@pytest.mark.unpacks
def test_operations_without_a_packed_form_work_on_all_entries():
    scaled = 2.0 * X
    torch.testing.assert_close(scaled.exp(), (2.0 * X.dequantize()).exp())
    torch.testing.assert_close(scaled + X.dequantize(), 3.0 * X.dequantize())


@pytest.mark.parametrize("out_channels", [8, 40])  # narrower than the features, and wider
@pytest.mark.parametrize("aggr", ["add", "mean", "max"])
def test_gin_works_on_the_codes(out_channels, aggr):
    conv = gin(out_channels, aggr=aggr)
    expected = conv(X.dequantize(), EDGE_INDEX)
    torch.testing.assert_close(conv(X, EDGE_INDEX) + 0, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(conv(X, EDGE_INDEX) + 0, expected, rtol=1e-4, atol=1e-4)


def test_it_is_of_the_factor_that_was():
    factor = torch.ones(1)
    scaled = X * factor
    factor.mul_(0.5)
    assert torch.equal(scaled.materialize(), X.dequantize())


@pytest.mark.unpacks
def test_what_is_written_stays():
    scaled, expected = 2.0 * X, 2.0 * X.dequantize()
    for rows in (scaled, expected):
        rows.add_(1.0)
        rows[::3] = 0.0
        rows[3:5].mul_(2.0)
        F.relu(rows, inplace=True)
    assert torch.equal(scaled + 0, expected)
    weight = torch.randn(5, WIDTH)
    assert torch.equal(F.linear(scaled, weight), F.linear(expected, weight))
    adjacency = adjacency_of(EDGE_INDEX[0], EDGE_INDEX[1], NODES, NODES)
    sums = Aggregated(X, adjacency)
    assert torch.equal(sums + scaled, sums + expected)


@pytest.mark.unpacks
def test_keywords_are_understood():
    expected = 2.0 * X.dequantize()
    out = torch.empty(NODES, WIDTH)
    assert torch.equal(torch.mul(X, 2.0, out=out), expected)
    assert torch.equal(torch.mul(input=X, other=2.0), expected)


@pytest.mark.unpacks
@pytest.mark.parametrize("out_channels", [8, 40])
def test_epsilon_learns(out_channels):
    conv = gin(out_channels, train_eps=True)
    found = []
    for x in (X.dequantize(), X):
        conv.zero_grad()
        conv(x, EDGE_INDEX).square().mean().backward()
        found.append([p.grad.clone() for p in conv.parameters()])
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_a_narrow_layer_makes_no_matrix_of_all_features():
    conv, largest = gin(4), []
    gather = PackedTensor.gather_rows

    def spy(x, index):
        largest.append(x.size(0) if index is None else len(index))
        return gather(x, index)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(PackedTensor, "gather_rows", spy)
        conv(X, EDGE_INDEX) + 0
        assert not largest  # linear layer first, then sums
        gin(40)(X, EDGE_INDEX) + 0
        assert max(largest) <= 1024


def test_only_rows_of_the_same_number_are_added_later():
    adjacency = adjacency_of(EDGE_INDEX[0], EDGE_INDEX[1], NODES, NODES)
    assert isinstance(Aggregated(X, adjacency) + 2.0 * X, Aggregated)
    assert isinstance(2.0 * X + Aggregated(X, adjacency), Aggregated)
    with pytest.raises(RuntimeError, match="size of tensor"):
        Aggregated(X, adjacency) + 2.0 * X[:7]
