import copy
import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN, GCNConv, GraphSAGE
from torch_geometric.utils import coalesce, degree

from lit_gnncompress import BitPlan, quantize_
from lit_gnncompress.callbacks import Quantize
from lit_gnncompress.data import GraphDataModule, InteractionDataModule, TableBatch
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from lit_gnncompress.embedding import PartitionEmbedding, TTEmbedding, hierarchical_order
from lit_gnncompress.models import AGNN, DLRM, NodeClassifier, Recommender
from lit_gnncompress.quantization.calibration import to_plain
from lit_gnncompress.quantization.quantize import quantization_of
from lit_gnncompress.storage import (
    PackedTensor,
    ledger_of,
    load_compressed,
    open_features,
    pack,
    save_compressed,
    save_features,
)
from lit_gnncompress.storage.artifact import KIND
from lit_gnncompress.storage.container import ContainerError, read_container
from lit_gnncompress.storage.container_writer import write_container

NODES, WIDTH, CLASSES = 60, 20, 3


@pytest.fixture(autouse=True)
def one_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_graph(dense=True):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(NODES, WIDTH, generator=generator)
    x = x if dense else F.normalize((x < 0.2).float(), p=1)
    edge_index = coalesce(torch.randint(0, NODES, (2, 300), generator=generator))
    y = torch.randint(0, CLASSES, (NODES,), generator=generator)
    return Data(x=x, edge_index=edge_index, y=y, train_mask=y > 0, val_mask=y > 1, test_mask=y == 0)


def classifier(model="gcn", seed=0):
    torch.manual_seed(seed)
    return NodeClassifier(model, in_channels=WIDTH, num_classes=CLASSES, hidden_channels=16)


class Own(L.LightningModule):
    """A module as a user writes it."""

    def __init__(self, hidden=8, act=None, dims=(WIDTH, CLASSES)):
        super().__init__()
        self.save_hyperparameters()
        self.net = GraphSAGE(dims[0], hidden, 2, dims[1])
        self.act = act or nn.Identity()

    def forward(self, batch):
        return self.act(self.net(batch.x, batch.edge_index))


PLANS = {
    "gcn": BitPlan(features={"convs.0": 4, "convs.1": 8}),
    "sage": BitPlan(features=[8, 4, 2], degree_splits=[4, 6]),
    "gin": BitPlan(features=8),
    "gat": BitPlan(features={"convs.0": 2}, attention=8),
    "gatv2": BitPlan(features=4, attention=[8, 4], degree_quantiles=[0.5]),
    "agnn": BitPlan(features=8, attention=4),
}


def logits_of(quantization, module, data):
    module.eval()
    degrees = degree(data.edge_index[1], NODES, dtype=torch.long)
    quantization.publish(NODES, degrees)
    with torch.no_grad():
        out = module(data.x, data.edge_index)
    quantization.context.clear()
    return out


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def saved(module=None, plan=None, data=None, path="m.safetensors"):
    """A small artifact."""
    module = classifier() if module is None else module
    plan = PLANS["gcn"] if plan is None and quantization_of(module) is None else plan
    save_compressed(path, module, plan, make_graph() if data is None else data)
    return module


# --- what comes back ----------------------------------------------------------------------------


@pytest.mark.parametrize("model", PLANS)
def test_it_predicts_as_fake_quantization_does(model):
    module, data = classifier(model), make_graph()
    quantization = quantize_(module, PLANS[model])
    expected = logits_of(quantization, module, data)
    save_compressed("m.safetensors", module, data=data)
    loaded = load_compressed("m.safetensors")
    assert loaded.plan == PLANS[model]
    assert isinstance(loaded.data.x, PackedTensor)
    actual = logits_of(loaded.quantization, loaded.module, loaded.data)
    off = (actual - expected).abs().amax(1) > 1e-5 + 1e-4 * expected.abs().amax(1)
    assert off.sum() <= 2  # sums in another order may meet another side of a border of codes
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-2)
    assert torch.equal(loaded.predict(), expected.argmax(1))
    assert loaded.quantization.context.splits == quantization.context.splits


def test_a_plain_module_with_a_plan():
    module = saved()
    twin = copy.deepcopy(module)
    expected = logits_of(quantize_(twin, PLANS["gcn"]), twin, make_graph())
    assert torch.equal(load_compressed("m.safetensors").predict(), expected.argmax(1))


def test_options_and_ranges_come_back():
    module = classifier()
    options = {"range": {"*": "minmax"}, "granularity": {"convs.0": "row"}, "percentile": 0.98}
    quantization = quantize_(module, PLANS["gcn"], **options)
    saved(module)
    loaded = load_compressed("m.safetensors").quantization
    assert loaded.context.options == quantization.context.options
    assert [site.quantizer for site in loaded.sites] == [s.quantizer for s in quantization.sites]
    assert [*loaded.calibrated] == ["model.convs.1"]  # those of inputs are with their codes


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("model", ["gcn", "gat"])
def test_after_a_fit(packed, model):
    module, data = classifier(model), make_graph()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    callback = Quantize(PLANS[model], packed=packed, verbose=False)
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", callbacks=[callback], enable_model_summary=False, **quiet
    )
    loader = FullGraphLoader(data)
    trainer.fit(module, loader, loader)
    known = callback.calibration
    (expected,) = trainer.predict(module, loader)
    save_compressed("m.safetensors", module, data=data)
    loaded = load_compressed("m.safetensors")
    assert torch.equal(loaded.predict(), expected)
    found = to_plain(loaded.quantization.calibrated)
    assert {name: found[name] for name in known} == known
    test_trainer = L.Trainer(accelerator="cpu", enable_model_summary=False, **quiet)
    (again,) = test_trainer.predict(loaded.module, FullGraphLoader(loaded.data))
    assert torch.equal(again, expected)


class Shared(nn.Module):
    """One convolution for two layers, whose features are far apart in size."""

    def __init__(self):
        super().__init__()
        self.lin, self.conv = nn.Linear(WIDTH, 8), GCNConv(8, 8)

    def forward(self, x, edge_index):
        h = self.conv(self.lin(x) * 100, edge_index)
        return self.conv(torch.tanh(h / 100), edge_index)


class TwoViews(L.LightningModule):
    """Calls its model twice in a step, with features far apart in size."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def predict_step(self, batch, batch_idx):
        return self.net(batch.x, batch.edge_index), self.net(batch.scaled, batch.edge_index)


@pytest.mark.parametrize("views", [False, True])
def test_a_layer_that_is_called_more_than_once(views):
    torch.manual_seed(0)
    net, data = Shared().eval(), make_graph()
    data.scaled = 4 * data.x
    module = TwoViews(net) if views else net
    with torch.no_grad():
        exact = [net(x, data.edge_index) for x in (data.x, data.scaled)]
    saved(module, BitPlan({"*conv": 8}), data)
    meta = read_container("m.safetensors", KIND)[1]
    assert [len(call) for call in meta["ranges"]["net.conv" if views else "conv"]] == [1, 1]
    loaded = load_compressed("m.safetensors", copy.deepcopy(module))
    for _ in range(2):
        outs = loaded.predict() if views else [loaded.predict()]
        for out, expected in zip(outs, exact, strict=False):
            assert (out - expected).norm() < 0.05 * expected.norm()


def test_a_lightning_module_of_the_user():
    torch.manual_seed(0)
    module, plan = Own(hidden=12), BitPlan(features=4)
    saved(module, plan)
    loaded = load_compressed("m.safetensors", Own)
    assert loaded.module.hparams.hidden == 12
    given = load_compressed("m.safetensors", Own(hidden=12))
    assert torch.equal(loaded.predict(), given.predict())
    assert loaded.predict().shape == (NODES, CLASSES)  # there is no predict_step: the logits
    with pytest.raises(ValueError, match=r"is not looked up: give the class, .*module=Own\)"):
        load_compressed("m.safetensors")
    with pytest.raises(ValueError, match=r"(?s)Own does not fit .*size mismatch"):
        load_compressed("m.safetensors", Own(hidden=8))
    with pytest.raises(ValueError, match=r"(?s)GCN does not fit .*Missing key"):
        load_compressed("m.safetensors", GCN(WIDTH, 12, 2, CLASSES))
    with pytest.raises(ValueError, match="do not build"):
        load_compressed("m.safetensors", GCN)


def test_an_argument_that_json_cannot_hold():
    saved(Own(act=nn.Softmax(dim=1)), BitPlan(features=4))
    with pytest.raises(ValueError, match=r"but not its act, .* build the module and give it"):
        load_compressed("m.safetensors", Own)
    loaded = load_compressed("m.safetensors", Own(act=nn.Softmax(dim=1)))
    assert_close(loaded.predict().sum(1), torch.ones(NODES))


NETS = {
    "gcn": lambda: GCN(WIDTH, 8, 2, CLASSES),
    "agnn": lambda: AGNN(WIDTH, 8, out_channels=CLASSES),
}


@pytest.mark.parametrize("net", NETS)
def test_a_plain_nn_module(net):
    torch.manual_seed(0)
    module, data = NETS[net](), make_graph()
    quantization = quantize_(module, BitPlan(features=8))
    expected = logits_of(quantization, module, data)
    save_compressed("m.safetensors", module, data=data)
    loaded = load_compressed("m.safetensors", NETS[net]())
    assert_close(loaded.predict(), expected)


def test_the_model_alone():
    module, data = classifier(), make_graph()
    quantization = quantize_(module, PLANS["gcn"])
    save_compressed("m.safetensors", module)
    loaded = load_compressed("m.safetensors")
    assert loaded.data is None
    assert (loaded.bytes_by_part["features"], loaded.bytes_by_part["graph"]) == (0, 0)
    with pytest.raises(ValueError, match="holds no graph"):
        loaded.predict()
    expected = logits_of(quantization, module, data)
    assert torch.equal(loaded.predict(data), expected.argmax(1))


def test_another_graph():
    module = saved()
    data = make_graph(dense=False)
    loaded = load_compressed("m.safetensors")
    smaller = data.subgraph(torch.arange(40))
    assert loaded.predict(smaller).shape == (40,)
    assert loaded.predict().shape == (NODES,)
    assert quantization_of(module) is None


def test_a_sparse_adjacency():
    data, plan = make_graph(), BitPlan(features=[8, 4], degree_splits=[5])
    edge_index, module = data.edge_index, GraphSAGE(WIDTH, 8, 2, CLASSES)
    ones = torch.ones(edge_index.size(1))
    adj_t = torch.sparse_coo_tensor(edge_index.flip(0), ones, (NODES, NODES)).to_sparse_csr()
    predictions = []
    for edges in ({"edge_index": edge_index}, {"adj_t": adj_t}):
        save_compressed("m.safetensors", module, plan, Data(x=data.x, **edges))
        loaded = load_compressed("m.safetensors", GraphSAGE(WIDTH, 8, 2, CLASSES))
        predictions.append(loaded.predict())
    assert_close(*predictions)
    assert torch.equal(loaded.data.adj_t.to_dense(), adj_t.to_dense())
    assert loaded.bytes_by_part["graph"] == edge_index.size(1) + 2 * (NODES + 1) + 4


def test_edge_weights():
    data, module = make_graph(), GCN(WIDTH, 8, 2, CLASSES)
    data.edge_weight = torch.rand(data.num_edges)
    predictions = []
    for each in (data, Data(data.x, data.edge_index)):
        save_compressed("m.safetensors", module, BitPlan(features=8), each)
        loaded = load_compressed("m.safetensors", GCN(WIDTH, 8, 2, CLASSES))
        predictions.append(loaded.predict())
        assert loaded.data.get("edge_weight") is None or torch.equal(
            loaded.data.edge_weight, data.edge_weight
        )
    assert not torch.allclose(*predictions)


def test_attributes_keep_their_types():
    data = make_graph()
    data.name, data.num, data.none, data.far = "digits", [1, 2.5], None, torch.tensor([2**40])
    data.half = torch.rand(3).half()
    saved(data=data)
    found = load_compressed("m.safetensors").data
    assert sorted(found.keys()) == sorted(data.keys())
    for name, value in data.to_dict().items():
        if isinstance(value, torch.Tensor) and name != "x":
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value)
        elif name != "x":
            assert found[name] == value
    for wrong in (object(), torch.eye(3).to_sparse()):
        data.wrong = wrong
        with pytest.raises(ValueError, match=r"data\.wrong is a .* leave it out"):
            saved(data=data)


def test_features_that_are_packed_already():
    data = make_graph()
    packed = pack(data.x, 4)
    save_features("x.safetensors", packed)
    for x in (packed, open_features("x.safetensors")):
        data.x = x
        saved(data=data)
        assert torch.equal(
            load_compressed("m.safetensors").data.x.dequantize(), packed.dequantize()
        )


def test_features_in_full_precision():
    data = make_graph()
    saved(plan=BitPlan(features={"convs.1": 4}), data=data)
    loaded = load_compressed("m.safetensors")
    assert torch.equal(loaded.data.x, data.x)
    assert loaded.bytes_by_part["features"] == 4 * NODES * WIDTH


def test_weights_of_half_precision():
    module = GCN(WIDTH, 8, 2, CLASSES).bfloat16()
    save_compressed("m.safetensors", module, BitPlan(features=8))
    given = load_compressed("m.safetensors", GCN(WIDTH, 8, 2, CLASSES)).module
    for name, value in module.state_dict().items():
        assert given.state_dict()[name].dtype == torch.bfloat16
        assert torch.equal(given.state_dict()[name], value)


def test_a_module_that_is_quantized_otherwise_gets_the_plan_of_the_file():
    saved()
    module = classifier(seed=5)
    quantize_(module, BitPlan(features=2))
    loaded = load_compressed("m.safetensors", module)
    assert loaded.module is module
    assert loaded.plan == PLANS["gcn"]


def test_to_another_device():
    saved(classifier("gat"), PLANS["gat"])
    loaded = load_compressed("m.safetensors")
    expected = loaded.predict()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert torch.equal(loaded.to(device).predict().cpu(), expected)
    assert loaded.data.x.device.type == "cpu"


def test_in_a_fresh_process():
    module, data = classifier("gat"), make_graph()
    expected = logits_of(quantize_(module, PLANS["gat"]), module, data).argmax(1)
    save_compressed("m.safetensors", module, data=data)
    code = """
        import json, sys
        from lit_gnncompress import load_compressed
        print(json.dumps(load_compressed("m.safetensors").predict().tolist()))
        assert "lit_gnncompress.callbacks" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == expected.tolist()


# --- saving changes nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_module_stays_as_it_was(quantized, training):
    module, data = classifier("gat"), make_graph()
    if quantized:
        quantization = quantize_(module, PLANS["gat"])
        quantization.enabled = False
    module.train(training)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    places = {name: id(value) for name, value in module.named_parameters()}
    before = _state(module)
    save_compressed("m.safetensors", module, None if quantized else PLANS["gat"], data)
    assert _state(module) == before
    assert {name: id(value) for name, value in module.named_parameters()} == places
    assert all(torch.equal(value, weights[n]) for n, value in module.state_dict().items())
    assert type(data.x) is torch.Tensor
    if quantized:
        assert not quantization.enabled
        assert quantization.context.calibrating
        assert quantization.calibrated == {}
        assert [site.seen for site in quantization.sites] == [[]] * len(quantization.sites)


def _state(module):
    return [
        (name, type(each), each.training, list(each._forward_pre_hooks), list(each._forward_hooks))
        for name, each in module.named_modules()
    ]


def test_an_error_leaves_the_old_file():
    saved()
    before = Path("m.safetensors").read_bytes()
    data = make_graph()
    data.wrong = object()
    with pytest.raises(ValueError, match="wrong"):
        saved(data=data)
    with pytest.raises(FileNotFoundError, match="no folder"):
        saved(path="none/m.safetensors")
    assert Path("m.safetensors").read_bytes() == before
    assert os.listdir() == ["m.safetensors"]


# --- small tables -------------------------------------------------------------------------------


def recommender(kind="tensor train"):
    """With a small table, and its graph."""
    torch.manual_seed(0)
    users = torch.randint(0, 30, (200,))
    data = InteractionDataModule.from_edge_index(
        torch.stack([users, (users + torch.randint(0, 9, (200,))) % 40]), num_users=30, num_items=40
    )
    order = hierarchical_order(data.data.edge_index, 70, (4, 4, 5))
    tables = {
        "tensor train": lambda: TTEmbedding(70, 8, rank=2, order=order, parts=True),
        "few bits": lambda: TTEmbedding(70, 8, rank=2, order=order, parts=True).quantized(5),
        "vectors of parts": lambda: PartitionEmbedding(70, 8, order),
    }
    return Recommender(30, 40, 8, k=5, embedding=tables[kind]()).eval(), data.data


@pytest.mark.parametrize("plan", [None, BitPlan(features=8)])
@pytest.mark.parametrize("kind", ["tensor train", "few bits", "vectors of parts"])
def test_small_tables(kind, plan):
    module, graph = recommender(kind)
    sizes = save_compressed("m.safetensors", module, plan, graph)
    held = [*module.state_dict().values()]
    assert sizes["weights"] == sum(each.numel() * each.element_size() for each in held)
    loaded = load_compressed("m.safetensors")
    assert type(loaded.module.embedding) is type(module.embedding)
    assert torch.equal(loaded.module.embedding.full_weight(), module.embedding.full_weight())
    assert (loaded.plan, loaded.quantization is None) == (plan or BitPlan(), plan is None)
    found = loaded.predict()
    assert found.shape == (30, 5)
    if plan is None:
        with torch.no_grad():
            assert torch.equal(found, module.predict_step(graph, 0))


def test_a_module_without_message_passing():
    torch.manual_seed(0)
    module = DLRM([60, 5, 50], 4, embedding_dim=8, bottom_mlp=(8,), top_mlp=(8,)).eval()
    with pytest.raises(ValueError, match="DLRM is not quantized and has no small table"):
        save_compressed("m.safetensors", module)
    module.embeddings[0] = TTEmbedding(60, 8, rank=2)
    module.embeddings[2] = TTEmbedding(50, 8, rank=2).quantized(4)
    save_compressed("m.safetensors", module)
    loaded = load_compressed("m.safetensors")
    batch = TableBatch(torch.rand(6, 4), torch.randint(0, 5, (6, 3)), torch.zeros(6))
    with torch.no_grad():
        assert torch.equal(loaded.predict(batch), module.predict_step(batch, 0))
    assert torch.equal(loaded.to("cpu").predict(batch), loaded.predict(batch))
    with pytest.raises(ValueError, match=r"holds no graph: give predict\(\) one, or a batch"):
        loaded.predict()


def test_a_step_that_wants_more_than_a_graph():
    class Asked(Own):
        def predict_step(self, batch, batch_idx):
            return self.net(batch.x, batch.edge_index)[batch.asked]

    module, graph = Asked(), make_graph()
    with pytest.raises(
        ValueError, match=r"Asked.predict_step does not predict on the graph, .*'asked'"
    ):
        save_compressed("m.safetensors", module, BitPlan(features=8), graph)
    save_compressed("m.safetensors", module, BitPlan(features=8))
    graph.asked = torch.tensor([3, 4])
    assert load_compressed("m.safetensors", Asked).predict(graph).shape == (2, CLASSES)


# --- bad input ----------------------------------------------------------------------------------


def test_plans_that_contradict():
    with pytest.raises(ValueError, match="plan=None, and NodeClassifier is not quantized"):
        save_compressed("m.safetensors", classifier())
    module = classifier()
    quantize_(module, PLANS["gcn"])
    with pytest.raises(ValueError, match=r"is not the plan .* leave it out"):
        save_compressed("m.safetensors", module, BitPlan(features=2))
    save_compressed("m.safetensors", module, PLANS["gcn"])
    with pytest.raises(ValueError, match="no such layer"):
        save_compressed("m.safetensors", classifier(), BitPlan(features={"convs.9": 2}))


def test_another_rounding():
    for rounding in ("stochastic", "floor"):
        module = classifier()
        quantize_(module, PLANS["gcn"], rounding=rounding)
        if rounding == "floor":
            with pytest.raises(ValueError, match=r"rounding='floor', .* fit with"):
                saved(module)
        else:
            saved(module)
            load_compressed("m.safetensors").predict()


def test_graphs_of_several_types():
    with pytest.raises(TypeError, match="data is a HeteroData"):
        save_compressed("m.safetensors", classifier(), PLANS["gcn"], HeteroData())


def test_modules_that_no_file_can_hold():
    module = classifier()
    module.register_buffer("adjacency", torch.eye(3).to_sparse())
    with pytest.raises(ValueError, match="adjacency in the state of NodeClassifier is a Tensor in"):
        save_compressed("m.safetensors", module, PLANS["gcn"])
    module = classifier()
    module.last_loss = next(module.parameters()).sum()
    with pytest.raises(ValueError, match="NodeClassifier cannot be copied"):
        save_compressed("m.safetensors", module, PLANS["gcn"])


# --- damaged files ------------------------------------------------------------------------------


def refused(data):
    with open("bad.safetensors", "wb") as file:
        file.write(data)
    with pytest.raises(ContainerError, match=r"bad\.safetensors"):
        load_compressed("bad.safetensors")


def test_flipped_bytes(monkeypatch):
    saved(data=make_graph(dense=False))
    monkeypatch.setattr(torch.serialization, "load", None)
    monkeypatch.setattr("pickle.loads", None)
    data = Path("m.safetensors").read_bytes()
    chance = random.Random(0)
    for _ in range(1000):
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        refused(flipped)


def test_truncation():
    saved()
    data = Path("m.safetensors").read_bytes()
    for k in range(100):
        refused(data[: k * len(data) // 100])


def test_a_newer_format(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lit_gnncompress.storage.container.VERSION", 2)
        saved()
    with pytest.raises(ContainerError, match=r"format version 2, .* update lit-gnncompress"):
        load_compressed("m.safetensors")


def rewritten(change):
    saved()
    tensors, meta = read_container("m.safetensors", KIND)
    change(tensors, meta)
    write_container("bad.safetensors", tensors, meta, KIND)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda t, m, key=key: m.pop(key) for key in
          ("module", "plan", "splits", "options", "ranges", "data")),
        *(lambda t, m, key=key: m["module"].pop(key) for key in ("class", "hparams", "missing")),
        lambda t, m: t.pop("data.edge_index"),
        lambda t, m: t.pop("data.x.blocks.0.codes"),
        lambda t, m: m.update(plan={"features": 9}),
        lambda t, m: m.update(plan={"feature": 4}),
        lambda t, m: m["data"].update(y={}),
        lambda t, m: m["data"].update(y={"tensor": "load"}),
        lambda t, m: m["ranges"]["model.convs.1"][0].update(lo=[[float("inf")]]),
    ],
)  # fmt: skip
def test_files_that_contradict_themselves(change):
    rewritten(change)
    with pytest.raises(ContainerError, match=r"bad\.safetensors"):
        load_compressed("bad.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: m["module"].update({"class": "os.system"}), "not looked up"),
        (
            lambda t, m: m["module"].update({"class": "lit_gnncompress.models.build_backbone"}),
            "not looked up",
        ),
        (lambda t, m: m["module"]["hparams"].update(other=1), "do not build"),
        (lambda t, m: t.pop("weight.model.convs.0.bias"), "does not fit what"),
        (lambda t, m: m.update(plan={"features": {"convs.9": 4}}), "does not fit what"),
        (lambda t, m: m["options"].update(other=1), "does not fit what"),
    ],
)
def test_files_that_no_module_fits(change, message):
    rewritten(change)
    with pytest.raises(ValueError, match=message):
        load_compressed("bad.safetensors")


def test_files_of_something_else():
    with pytest.raises(FileNotFoundError):
        load_compressed("none.safetensors")
    save_features("x.safetensors", pack(torch.rand(4, 4), 2))
    with pytest.raises(ContainerError, match="holds 'features', but 'model' was asked for"):
        load_compressed("x.safetensors")


# --- bytes --------------------------------------------------------------------------------------


def inputs_in_ledger(quantization, first="convs.0"):
    book = ledger_of(quantization)
    rows = sum(row.bytes_real for row in book.rows if row.site.endswith(first))
    return rows + book.bytes_buckets


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("model", ["gcn", "sage"])
def test_features_take_what_the_ledger_says(model, dense):
    module, data = classifier(model), make_graph(dense)
    quantization = quantize_(module, PLANS[model])
    logits_of(quantization, module, data)
    sizes = save_compressed("m.safetensors", module, data=data)
    assert sum(sizes.values()) == os.path.getsize("m.safetensors")
    loaded = load_compressed("m.safetensors")
    assert loaded.bytes_by_part == sizes
    loaded.predict()
    assert sizes["features"] == inputs_in_ledger(quantization)
    assert sizes["features"] == inputs_in_ledger(loaded.quantization)
    weights = sum(4 * value.numel() for value in module.parameters())
    assert sizes["weights"] == weights


@pytest.mark.parametrize("name", ["Cora", "CiteSeer", "PubMed"])
def test_real_graphs(name, tmp_path):
    root = os.environ.get("GNNCOMPRESS_DATA")
    if not root or not os.path.isdir(os.path.join(root, "Planetoid", name, "raw")):
        pytest.skip("needs raw data sets: set GNNCOMPRESS_DATA to their folder")
    data = GraphDataModule(name, processed_dir=tmp_path / "processed").data
    for attribute in ("y", "train_mask", "val_mask", "test_mask", "deg"):
        del data[attribute]
    module = NodeClassifier(in_channels=data.num_features, num_classes=7).eval()
    plan = BitPlan(features={"convs.0": 4 if name == "PubMed" else 1, "convs.1": 8})
    quantization = quantize_(module, plan, granularity={"convs.0": "row"})
    with torch.no_grad():
        expected = module(data.x, data.edge_index).argmax(1)
    sizes = save_compressed("m.safetensors", module, data=data)
    ledger = inputs_in_ledger(quantization)
    edges = 2 * 2 * data.num_edges  # two ends in 16 bits
    weights = sum(4 * value.numel() for value in module.parameters())
    assert os.path.getsize("m.safetensors") == pytest.approx(ledger + edges + weights, rel=0.02)
    assert sizes["features"] == ledger
    assert torch.equal(load_compressed("m.safetensors").predict(), expected)
