import copy
import pickle
import warnings

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader
from torch_geometric.data import InMemoryDataset
from torch_geometric.loader import DataLoader as GraphLoader
from torch_geometric.loader import RandomNodeLoader
from torch_geometric.nn import GraphConv, SAGEConv, SGConv
from torch_geometric.utils import degree

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import QuantizationFinetuning, Quantize
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.models import NodeClassifier
from lit_gnncompress.quantization.quantize import quantization_of, quantize_
from lit_gnncompress.storage import PackedTensor
from lit_gnncompress.storage.node_rows import NodeRows
from lit_gnncompress.storage.packed_sites import packed_input
from tests.callbacks.tiny import Tiny, make_graph, make_module, make_trainer

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


def changed(graph):
    graph = copy.copy(graph)
    graph.x = graph.x + 0.1 * torch.randn_like(graph.x)
    return graph


@pytest.mark.parametrize(
    ("collate", "count"), [(lambda graph: graph, 1), (copy.copy, 1), (changed, 0)]
)
def test_batches_are_packed_if_they_hold_the_same_features(collate, count, monkeypatch):
    packs = []

    def pack(*args):
        packs.append(1)
        return packed_input(*args)

    monkeypatch.setattr("lit_gnncompress.callbacks.pack_inputs.packed_input", pack)
    data = digits()
    module, graph = module_for(data, "gcn"), data.data
    loader = DataLoader([graph], collate_fn=lambda graphs: collate(graphs[0]))
    run = make_trainer(Quantize(PLANS["gcn"], packed=True, verbose=False), max_epochs=4)
    run.fit(module, train_dataloaders=loader)
    assert len(packs) == count
    assert isinstance(graph.x, PackedTensor) == bool(count)


class Same(InMemoryDataset):
    def __init__(self, graph):
        super().__init__()
        self.data, self.slices = graph, None


LOADERS = {
    "graphs": lambda graph: GraphLoader([graph]),
    "a dataset": lambda graph: GraphLoader(Same(graph)),
    "a list of loaders": lambda graph: [GraphLoader([graph]), GraphLoader([graph])],
    "samples": lambda graph: RandomNodeLoader(graph, num_parts=3),
}


class Mean(Tiny):
    """Takes a batch of each loader."""

    def training_step(self, batch, batch_idx):
        batches = batch if isinstance(batch, list) else [batch]
        return sum(super(Mean, self).training_step(each, batch_idx) for each in batches)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("by_degree", [False, True])
def test_graphs_behind_loaders_are_packed(name, by_degree):
    graph = make_graph()
    own_x = graph.x
    seen = []

    class See(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(type((batch[0] if isinstance(batch, list) else batch).x))

    plan = BitPlan([4, 8], degree_splits=[10]) if by_degree else BitPlan(4)
    if by_degree and name == "samples":
        graph.deg = degree(graph.edge_index[1], graph.num_nodes).long()
    torch.manual_seed(0)
    run = make_trainer(Quantize(plan, packed=True, verbose=False), See(), max_epochs=3)
    run.fit(Mean(), train_dataloaders=LOADERS[name](graph))
    assert isinstance(graph.x, PackedTensor)
    assert graph.x.packed_bytes < 4 * own_x.numel()
    assert seen[0] is torch.Tensor
    if name != "samples":  # whose rows are dequantized as they are drawn
        assert set(seen[1:]) == {PackedTensor}


def changing(loader_class):
    class Changing(loader_class):
        def collate_fn(self, index):
            graph = super().collate_fn(index)
            graph.x = graph.x.abs().log1p()
            return graph

    return Changing


def test_samples_of_other_features_than_the_graphs_stay():
    graph = make_graph()
    own_x = graph.x
    run = make_trainer(Quantize(BitPlan(4), packed=True, verbose=False), max_epochs=2)
    run.fit(make_module(), train_dataloaders=changing(RandomNodeLoader)(graph, num_parts=2))
    assert graph.x is own_x


def test_a_sampled_graph_is_packed_by_the_degrees_that_it_names():
    graph = make_graph()
    graph.deg = torch.arange(graph.num_nodes)
    plan = BitPlan([8, 4], degree_splits=[10])
    run = make_trainer(Quantize(plan, packed=True, verbose=False), max_epochs=1)
    run.fit(make_module(), train_dataloaders=RandomNodeLoader(graph, num_parts=2))
    assert torch.equal(graph.x.bucket, (graph.deg >= 10).to(torch.uint8))


def test_the_graph_is_forgotten_when_the_loop_ends():
    graph = make_graph()
    quantize = Quantize(BitPlan(4), packed=True, verbose=False)
    make_trainer(quantize, max_epochs=1).fit(make_module(), train_dataloaders=GraphLoader([graph]))
    assert quantize._degrees.whole_graph is None
    quantize._degrees.whole_graph = graph
    assert pickle.loads(pickle.dumps(quantize._degrees)).whole_graph is None


@pytest.mark.parametrize("conv", [SAGEConv, GraphConv, SGConv])
def test_mixed_precision(conv):
    module = make_module(net=BasicNet(conv))
    run = make_trainer(
        Quantize(BitPlan(8), packed=True, verbose=False), max_epochs=2, precision="bf16-mixed"
    )
    run.fit(module, train_dataloaders=GraphLoader([make_graph()]))
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


class BasicNet(torch.nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.convs = torch.nn.ModuleList([conv(8, 16), conv(16, 3)])

    def forward(self, x, edge_index):
        return self.convs[1](self.convs[0](x, edge_index).relu(), edge_index)


def test_a_graph_in_a_batch_trains_as_it_does_alone():
    weights = []
    for make in (lambda g: DataLoader([g], collate_fn=lambda g: g[0]), lambda g: GraphLoader([g])):
        module = make_module()
        run = make_trainer(Quantize(BitPlan(4), packed=True, verbose=False), max_epochs=4)
        run.fit(module, train_dataloaders=make(make_graph()))
        weights.append(list(module.parameters()))
    for ours, expected in zip(*weights, strict=True):
        torch.testing.assert_close(ours, expected)


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


# --- what becomes of the inputs -----------------------------------------------------------------


def packed_fit(data, bits, **options):
    quantize = Quantize(BitPlan(bits), packed=True, verbose=False, **options)
    make_trainer(quantize, max_epochs=1).fit(module_for(data, "gcn"), datamodule=data)
    return quantize


@pytest.mark.parametrize("held", [False, True])
def test_remove_puts_back_the_inputs_that_somebody_holds(held):
    data = digits()
    original = data.data.x
    values = original.clone()
    if not held:
        del original
    quantize = packed_fit(data, 2)
    assert data.data.x.bits == (2,)
    quantize.remove()
    if held:
        assert data.data.x is original
        assert torch.equal(original, values)
    else:
        assert data.data.x.bits == (2,)  # there is nothing else


def test_inputs_that_were_changed_since_are_not_put_back():
    data = digits()
    original = data.data.x
    quantize = packed_fit(data, 2)
    data.data.x = other = torch.zeros_like(original)
    quantize.remove()
    assert data.data.x is other


@pytest.mark.parametrize("bits", [8, 32])
def test_a_later_plan_with_other_bits_is_told(bits):
    data = digits()
    packed_fit(data, 1)
    with pytest.warns(
        UserWarning, match=rf"convs\.0: .* in 1 bits, but the plan gives them {bits}"
    ):
        packed_fit(data, bits)


def test_a_later_phase_in_full_precision_is_told():
    data = digits()
    packed_fit(data, 1)
    finetuning = QuantizationFinetuning(start_epoch=1, monitor="val_acc", mode="max")
    run = make_trainer(Quantize(BitPlan(1), verbose=False), finetuning, max_epochs=2)
    with pytest.warns(UserWarning, match=r"convs\.0: .* in 1 bits, but quantization is off"):
        run.fit(module_for(data, "gcn"), datamodule=data)


def test_a_quantize_that_packed_can_be_copied_and_pickled():
    data = digits()
    original = data.data.x
    quantize = packed_fit(data, 2)
    pickle.loads(pickle.dumps(copy.deepcopy(quantize)._replaced)).put_back()
    assert data.data.x is not original


# --- ranges of several batches and calls --------------------------------------------------------


def growing_graphs():
    """Graphs whose features grow from one to the next."""
    graphs = [make_graph(seed=seed) for seed in range(6)]
    for place, graph in enumerate(graphs):
        graph.x = graph.x * (1 + place) ** 2
    return graphs


def graph_loader(graphs):
    return DataLoader(graphs, batch_size=1, collate_fn=lambda batch: batch[0])


@pytest.mark.parametrize("range", ["mse", "minmax"])
def test_ranges_are_those_of_all_validation_batches(range):
    books, outs = [], []
    for backwards in (False, True):
        graphs = growing_graphs()
        validated = graphs[::-1] if backwards else graphs
        module = make_module(optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
        expected = [module(graph) for graph in growing_graphs()]
        quantize = Quantize(BitPlan(8), packed=True, verbose=False, range=range)
        run = make_trainer(quantize, max_epochs=2)
        run.fit(module, graph_loader(graphs[:1]), graph_loader(validated))
        books.append(quantize.calibration)
        outs.append(run.predict(module, graph_loader(growing_graphs())))
    assert books[0] == books[1]
    for one, other, exact in zip(*outs, expected, strict=True):
        assert torch.equal(one, other)
        assert (one - exact).norm() < 0.06 * expected[-1].norm()


def test_a_validation_forgets_the_ranges_of_the_one_before():
    """Weights that shrink leave smaller ranges."""
    quantize = Quantize(BitPlan(8), packed=True, verbose=False, range="minmax")
    found = []

    class Shrink(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            found.append(quantize.calibration["net.convs.1"][0]["hi"][0][0])
            with torch.no_grad():
                for weight in pl_module.parameters():
                    weight.mul_(0.5)

    module = make_module(optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    run = make_trainer(quantize, Shrink(), max_epochs=2, num_sanity_val_steps=0)
    run.fit(module, graph_loader(growing_graphs()[:1]), graph_loader(growing_graphs()))
    assert found[1] == pytest.approx(found[0] / 2, rel=1e-3)


class SharedNet(torch.nn.Module):
    """One convolution for two layers, whose features are far apart in size."""

    def __init__(self):
        super().__init__()
        self.lin, self.conv = torch.nn.Linear(8, 8), SAGEConv(8, 8)

    def forward(self, x, edge_index):
        h = self.conv(self.lin(x) * 100, edge_index)
        return self.conv(torch.tanh(h / 100), edge_index)


def test_a_shared_layer_predicts_what_fake_quantization_does_and_travels_in_checkpoints(tmp_path):
    outs, path, graph = [], tmp_path / "fit.ckpt", make_graph()
    for packed in (False, True):
        torch.manual_seed(0)
        module = Tiny(SharedNet(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
        quantize = Quantize(BitPlan({"conv": 8}), packed=packed, verbose=False)
        run = make_trainer(quantize, max_epochs=2)
        loader = graph_loader([graph])
        run.fit(module, loader, loader)
        [out] = run.predict(module, loader)
        outs.append(out)
        books = [(row.site, row.rows) for row in quantize.ledger.rows]
        assert books.count(("net.conv", graph.num_nodes)) == 2
    torch.testing.assert_close(outs[1], outs[0], rtol=1e-3, atol=1e-3)
    calls = quantize.calibration["net.conv"]
    assert [len(call) for call in calls] == [1, 1]
    assert calls[0][0]["hi"][0][0] > 10 * calls[1][0]["hi"][0][0]
    run.save_checkpoint(path)
    again = Quantize(BitPlan({"conv": 8}), packed=True, verbose=False)
    [out] = make_trainer(again).predict(module, loader, ckpt_path=path)
    assert again.calibration == quantize.calibration
    assert torch.equal(out, outs[1])


def test_an_optimizer_that_runs_its_step_again_is_counted_once():
    counted = []

    class Count(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            counted.append([len(site.seen) for site in quantize.quantization.sites])

    module = make_module(optimizer=lambda p: torch.optim.LBFGS(p, max_iter=3))
    quantize = Quantize(BitPlan(8), packed=True, verbose=False)
    make_trainer(quantize, Count(), max_epochs=2).fit(module, graph_loader([make_graph()]))
    assert counted == [[1, 1]] * 2
