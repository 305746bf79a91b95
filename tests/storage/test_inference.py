import lightning as L
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GAT, GCN, GCNConv, GraphSAGE, SAGEConv

from lit_gnncompress import BitPlan, quantize_
from lit_gnncompress.storage import PackedTensor, packed_sites
from lit_gnncompress.storage.inference import pack_for_inference, predict


@pytest.fixture
def data():
    torch.manual_seed(0)
    return Data(x=torch.rand(30, 12), edge_index=torch.randint(0, 30, (2, 120)))


class TwoInputs(nn.Module):
    """Reads one matrix at two layers, and another at a third."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = GCNConv(12, 4), GCNConv(12, 4), GCNConv(5, 4)

    def forward(self, batch):
        return (
            self.a(batch.x, batch.edge_index)
            + self.b(batch.x, batch.edge_index)
            + self.c(batch.pos, batch.edge_index)
        )


def test_inputs_are_packed_where_their_readers_agree(data):
    data.pos = torch.rand(30, 5)
    for bits, packed in (({"a": 4, "b": 4, "c": 8}, True), ({"a": 4, "b": 2, "c": 8}, False)):
        found = pack_for_inference(quantize_(TwoInputs(), BitPlan(features=bits)), data)
        assert (type(found.x) is PackedTensor) == packed
        assert found.pos.bits == (8,)
        assert type(data.x) is type(data.pos) is torch.Tensor


def test_ranges_are_those_of_hidden_features_alone(data):
    module = GCN(12, 8, 3, 2)
    quantization = quantize_(module.train(), BitPlan(features=8))
    found = pack_for_inference(quantization, data)
    assert not module.training
    assert [*quantization.calibrated] == ["convs.1", "convs.2"]
    known = quantization.calibrated["convs.1"][0][0]
    module.convs[0].lin.weight.data.mul_(3)
    pack_for_inference(quantization, found)
    assert quantization.calibrated["convs.1"][0][0] is known


def test_no_hidden_features_exist_in_float(data):
    quantization = quantize_(GCN(12, 8, 2, 2), BitPlan(features=8))
    found = pack_for_inference(quantization, data)
    with torch.no_grad():
        predict(quantization.module, found)
    assert all(site.seen[0].stored is not None for site in quantization.sites)


@pytest.mark.parametrize("granularity", ["bucket", "column", "row"])
@pytest.mark.parametrize("model", [GCN, GraphSAGE, GAT])
@pytest.mark.parametrize("bits", [8, [4, 32, 8]], ids=str)
def test_hidden_features_are_the_same_in_blocks_of_any_size(
    bits, model, granularity, data, monkeypatch
):
    torch.manual_seed(1)
    plan = BitPlan({"convs.0": 8, "convs.1": bits}, degree_splits=[3, 6])
    quantization = quantize_(model(12, 8, 2, 2), plan, range="minmax", granularity=granularity)
    found = pack_for_inference(quantization, data)
    with torch.no_grad():
        whole = predict(quantization.module, found)
        monkeypatch.setattr(packed_sites, "_BLOCK_BYTES", 7 * 4 * 8)
        monkeypatch.setattr(packed_sites, "_MOST_BLOCKS", 100)
        in_blocks = predict(quantization.module, found)
    torch.testing.assert_close(in_blocks, whole, rtol=1e-6, atol=1e-6)


class Activated(nn.Module):
    """Two layers, with something between them."""

    def __init__(self, between, first=GCNConv, **arguments):
        super().__init__()
        self.a = first(12, 8, **arguments)
        self.b = GCNConv(8, 2)
        self.between = between

    def forward(self, x, edge_index):
        return self.b(self.between(self.a(x, edge_index)), edge_index)


@pytest.mark.parametrize("granularity", ["tensor", "row"])
@pytest.mark.parametrize(
    ("between", "arguments", "at_once"),
    [
        (torch.relu, {}, True),
        (torch.Tensor.relu, {"bias": False}, True),
        (nn.Identity(), {}, True),
        (torch.tanh, {}, False),
        (lambda x: x.relu() + 1, {}, False),
        (torch.relu, {"first": SAGEConv, "aggr": "sum"}, True),
        (torch.relu, {"aggr": "mean"}, False),  # PyG divides the sums
        (lambda x: x + torch.ones(8, dtype=torch.float16), {"bias": False}, False),
        (torch.relu, {"aggr": "max"}, False),
    ],
)
def test_sums_are_packed_as_they_are_made(
    between, arguments, at_once, granularity, data, monkeypatch
):
    module = Activated(between, **arguments)
    quantization = quantize_(module, BitPlan(features=4), range="minmax", granularity=granularity)
    found = pack_for_inference(quantization, data)
    used = []
    ours = packed_sites._pack_sums

    def noted(*args):
        used.append(ours(*args))
        return used[-1]

    with torch.no_grad():
        monkeypatch.setattr(packed_sites, "_pack_sums", noted)
        out = predict(module, found)
        assert [each is not None for each in used] == [at_once]
        monkeypatch.setattr(packed_sites, "_pack_sums", lambda *_: None)
        assert torch.equal(out, predict(module, found))


def test_the_first_hidden_row_that_is_not_finite(data):
    quantization = quantize_(GCN(12, 8, 2, 2), BitPlan(features=8))
    found = pack_for_inference(quantization, data)
    quantization.module.convs[0].bias.data[3] = float("nan")
    message = r"convs\.1: features must be finite to be packed; row 0, column 3 is nan"
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        predict(quantization.module, found)


class OfGraph(nn.Module):
    def forward(self, batch):
        return batch.num_nodes


class OfEdges(nn.Module):
    def forward(self, x, edge_index, edge_weight=None, scale=1):
        return None if edge_weight is None else edge_weight.sum()


def test_how_modules_are_called(data):
    assert predict(OfGraph(), data) == 30
    assert predict(OfEdges(), data) is None
    data.edge_weight = torch.ones(120)
    assert predict(OfEdges(), data) == 120


class OfBatch(L.LightningModule):
    def predict_step(self, batch):
        return batch.num_nodes, None


class OfIndex(L.LightningModule):
    def predict_step(self, batch, batch_idx):
        return batch.num_nodes, batch_idx


class OfNumber(L.LightningModule):
    def predict_step(self, batch, number, dataloader_idx=None):
        return batch.num_nodes, (number, dataloader_idx)


class OfAny(L.LightningModule):
    def predict_step(self, *args, **kwargs):
        return args[0].num_nodes, (args[1:], kwargs)


class OfNamed(L.LightningModule):
    def predict_step(self, batch, *, scale=2):
        return batch.num_nodes, scale


@pytest.mark.parametrize("module", [OfBatch, OfIndex, OfNumber, OfAny, OfNamed])
def test_steps_are_called_as_by_a_trainer(module, data):
    trainer = L.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False)
    (expected,) = trainer.predict(module(), DataLoader([data]))
    assert predict(module(), data) == expected
