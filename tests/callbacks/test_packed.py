import copy
import warnings

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import QuantizationFinetuning, Quantize
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.models import NodeClassifier
from lit_gnncompress.quantization.quantize import quantization_of, quantize_
from lit_gnncompress.storage import PackedTensor
from lit_gnncompress.storage.node_rows import NodeRows
from lit_gnncompress.storage.packed_sites import packed_input
from tests.callbacks.tiny import make_trainer

PLANS = {
    "gcn": BitPlan({"convs.0": 4, "convs.1": 8}),
    "sage": BitPlan({"convs.0": [8, 4], "convs.1": 8}, degree_splits=[16]),
    "gat": BitPlan(4, attention=8),
    "agnn": BitPlan(8, attention=8),
}


@pytest.fixture(autouse=True)
def _no_unpacking():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*has no packed form.*")
        yield


def module_for(data, model):
    torch.manual_seed(0)
    sizes = {"in_channels": data.num_features, "num_classes": data.num_classes}
    return NodeClassifier(model, **sizes, hidden_channels=16, input_dropout=0.0, dropout=0.0)


def digits():
    return GraphDataModule("digits", normalize_features=False)


@pytest.mark.parametrize("model", PLANS)
def test_training_sees_the_same_as_without(model):
    weights = []
    for packed in (False, True):
        data = digits()
        module = module_for(data, model)
        quantize = Quantize(PLANS[model], packed=packed, verbose=False)
        make_trainer(quantize, max_epochs=4).fit(module, datamodule=data)
        assert isinstance(data.data.x, PackedTensor) == packed
        weights.append(copy.deepcopy(module.state_dict()))
    for name, expected in weights[0].items():
        if expected.is_floating_point():
            torch.testing.assert_close(weights[1][name], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("model", PLANS)
def test_test_gives_what_fake_quantization_gives(model):
    data = digits()
    module = module_for(data, model)
    quantize = Quantize(PLANS[model], packed=True, verbose=False)
    fit = make_trainer(quantize, max_epochs=3)
    fit.fit(module, datamodule=data)
    [result] = fit.test(module, datamodule=data, verbose=False)
    [predicted] = fit.predict(module, datamodule=data)
    quantize.remove()
    plain = digits()
    fake = make_trainer(Quantize(PLANS[model], verbose=False), max_epochs=1)
    [expected] = fake.test(module, datamodule=plain, verbose=False)
    assert result["test_acc"] == pytest.approx(expected["test_acc"], abs=0.002)
    same = predicted == fake.predict(module, datamodule=plain)[0]
    assert same.float().mean() > 0.995


def test_hidden_features_are_packed_in_test_alone():
    seen = {}

    def look(layer, args):
        seen[layer.training] = type(args[0])

    class Look(L.Callback):
        def setup(self, trainer, pl_module, stage):
            conv = pl_module.model.convs[1]
            if not hasattr(conv, "looked"):
                conv.looked = conv.register_forward_pre_hook(look)

    data = digits()
    module = module_for(data, "gcn")
    run = make_trainer(Quantize(PLANS["gcn"], packed=True, verbose=False), Look(), max_epochs=2)
    run.fit(module, datamodule=data)
    assert seen == {True: NodeRows, False: PackedTensor}


def test_the_ledger_is_the_same():
    books = []
    for packed in (False, True):
        data = digits()
        quantize = Quantize(PLANS["sage"], packed=packed, verbose=False)
        run = make_trainer(quantize, max_epochs=2)
        run.fit(module_for(data, "sage"), datamodule=data)
        run.test(run.lightning_module, datamodule=data, verbose=False)
        books.append(quantize.ledger.to_dict())
    assert books[0] == books[1]


def test_ranges_of_the_best_weights_are_kept_and_travel_in_checkpoints(tmp_path):
    data = digits()
    module = module_for(data, "gcn")
    quantize = Quantize(PLANS["gcn"], packed=True, verbose=False)
    finetuning = QuantizationFinetuning(start_epoch=2, monitor="val_acc", mode="max")
    run = make_trainer(quantize, finetuning, max_epochs=5)
    run.fit(module, datamodule=data)
    assert quantize.calibration == finetuning._best_ranges
    assert "model.convs.1" in quantize.calibration
    path = tmp_path / "fit.ckpt"
    run.save_checkpoint(path)
    again = Quantize(PLANS["gcn"], packed=True, verbose=False)
    other = module_for(data, "gcn")
    make_trainer(again, max_epochs=1).test(
        other, datamodule=digits(), ckpt_path=path, verbose=False
    )
    assert again.calibration["model.convs.1"] == quantize.calibration["model.convs.1"]


@pytest.mark.parametrize("fresh", [False, True])
def test_batches_are_packed_when_they_come_again(fresh, monkeypatch):
    packs = []

    def count(*args):
        packs.append(1)
        return packed_input(*args)

    monkeypatch.setattr("lit_gnncompress.callbacks.pack_inputs.packed_input", count)
    data = digits()
    module, graph = module_for(data, "gcn"), data.data
    loader = DataLoader([graph], collate_fn=lambda g: copy.copy(g[0]) if fresh else g[0])
    run = make_trainer(Quantize(PLANS["gcn"], packed=True, verbose=False), max_epochs=4)
    run.fit(module, train_dataloaders=loader)
    assert len(packs) == (0 if fresh else 1)
    assert isinstance(graph.x, PackedTensor) != fresh


def test_inputs_that_two_plans_read_stay():
    data = digits()

    class TwoReaders(NodeClassifier):
        def __init__(self, **sizes):
            super().__init__("gcn", input_dropout=0.0, **sizes)
            self.skip = torch.nn.Linear(sizes["in_channels"], sizes["num_classes"])

        def forward(self, x, edge_index):
            return super().forward(x, edge_index) + self.skip(x)

    module = TwoReaders(in_channels=data.num_features, num_classes=data.num_classes)
    plan = BitPlan({"convs.*": 4, "skip": 2})
    make_trainer(Quantize(plan, packed=True, verbose=False), max_epochs=2).fit(
        module, datamodule=data
    )
    assert not isinstance(data.data.x, PackedTensor)


def test_remove_gives_the_module_back():
    data = digits()
    module = module_for(data, "gat")
    classes = {name: type(m) for name, m in module.named_modules()}
    quantize = Quantize(PLANS["gat"], packed=True, verbose=False)
    make_trainer(quantize, max_epochs=1).fit(module, datamodule=data)
    quantize.remove()
    assert {name: type(m) for name, m in module.named_modules()} == classes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert quantization_of(module) is None


def test_features_packed_by_hand_are_left_as_they_are():
    from lit_gnncompress.storage import pack

    data = digits()
    data.data.x = packed = pack(data.data.x, 3)
    module = module_for(data, "gcn")
    quantize = Quantize(BitPlan(8), verbose=False)
    make_trainer(quantize, max_epochs=2).fit(module, datamodule=data)
    assert data.data.x is packed
    assert quantize.ledger.rows[0].bits == 3


def test_nan_in_hidden_features_names_the_layer():
    data = digits()
    module = module_for(data, "gcn").eval()
    quantization = quantize_(module, BitPlan(4))
    from lit_gnncompress.storage.packed_sites import use_packed_form

    use_packed_form(quantization)
    quantization.publish(data.data.num_nodes)
    with torch.no_grad():
        module.model.convs[0].bias.fill_(float("nan"))
        with pytest.raises(ValueError, match=r"model\.convs\.1: features must be finite.*row 0"):
            module(data.data.x, data.data.edge_index)
