import copy
import pickle

import lightning as L
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch_geometric.nn import SAGEConv
from torch_geometric.utils import to_torch_csr_tensor

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import QuantizationFinetuning, Quantize, Tensorize
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from lit_gnncompress.embedding import (
    NodeOrder,
    QuantizedTTEmbedding,
    TTEmbedding,
    hierarchical_order,
    structural_vectors,
)
from tests.callbacks.tiny import make_graph, make_trainer, same, weights_of

NODES, WIDTH, ROWS = 60, 8, (5, 3, 5)


class Graphs(L.LightningDataModule):
    """A random graph, under the name that the callback looks for."""

    def __init__(self, data=None):
        super().__init__()
        self.data = make_graph(NODES) if data is None else data

    def loader(self):
        return FullGraphLoader(self.data)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader


class Vectors(L.LightningModule):
    """Classifies nodes by trainable vectors; ``other`` is a second table."""

    def __init__(self, embedding=None, lr=0.02):
        super().__init__()
        self.net = nn.Module()
        self.net.embedding = nn.Embedding(NODES, WIDTH) if embedding is None else embedding
        self.other = nn.Embedding(NODES, WIDTH)
        self.conv = SAGEConv(2 * WIDTH, 3)
        self.lr = lr

    def forward(self, batch):
        ids = torch.arange(batch.num_nodes)
        x = torch.cat([self.net.embedding(ids), self.other(ids)], dim=1)
        return self.conv(x, batch.edge_index)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch), batch.y)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch), batch.y), batch_size=1)

    def test_step(self, batch, batch_idx):
        self.log("test_loss", F.cross_entropy(self(batch), batch.y), batch_size=1)

    def predict_step(self, batch, batch_idx):
        return self(batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def make_module(seed=0, **arguments):
    torch.manual_seed(seed)
    return Vectors(**arguments)


def tensorize(modules=("embedding",), rank=2, rows=ROWS, verbose=False, **arguments):
    return Tensorize(list(modules), rank=rank, rows=rows, verbose=verbose, **arguments)


def fit(module, *callbacks, data=None, max_epochs=2, **arguments):
    trainer = make_trainer(*callbacks, max_epochs=max_epochs)
    trainer.fit(module, datamodule=Graphs() if data is None else data, **arguments)
    return trainer


# --- what is replaced -----------------------------------------------------------------------------


def test_the_named_table_becomes_a_tensor_train_that_is_trained():
    callback, module = tensorize(), make_module()
    before = weights_of(module)
    fit(module, callback, max_epochs=1)
    table = module.net.embedding
    assert isinstance(table, TTEmbedding)
    assert type(module.other) is nn.Embedding
    assert table.shape.rows == ROWS
    (kept,) = callback.tables
    assert (kept.name, kept.order, kept.ranks) == ("net.embedding", "metis", (2, 2))
    assert kept.reduction == NODES * WIDTH / sum(p.numel() for p in table.parameters())
    fresh = make_module()
    callback.replace(fresh, make_graph(NODES))
    assert not same(weights_of(module), weights_of(fresh))
    assert not torch.equal(module.other.weight, before["other.weight"])


@pytest.mark.parametrize("start", ["fresh", "structure"])
def test_a_frozen_table_does_not_become_random(start):
    module = make_module()
    module.net.embedding.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=f"'net.embedding' is frozen, and start='{start}'"):
        tensorize(start=start).replace(module, make_graph(NODES))
    assert type(module.net.embedding) is nn.Embedding


@pytest.mark.parametrize(
    ("patterns", "replaced"),
    [
        (["net.embedding"], ["net.embedding"]),
        (["*"], ["net.embedding", "other"]),
        (["other", "embedding"], ["other", "net.embedding"]),
    ],
)
def test_names_tails_and_globs(patterns, replaced):
    callback = tensorize(patterns)
    callback.replace(make_module(), make_graph(NODES))
    assert [table.name for table in callback.tables] == replaced


def test_what_belongs_to_the_table_stays():
    table = nn.Embedding(NODES, WIDTH, padding_idx=3, dtype=torch.float64)
    table.requires_grad_(False).eval()
    table.field = "user"
    table.weight.no_weight_decay = True
    module = make_module(embedding=table)
    tensorize(start="table").replace(module, make_graph(NODES))
    cores = module.net.embedding
    assert cores.field == "user"
    assert all(p.no_weight_decay for p in cores.parameters())
    assert cores.padding_idx == 3
    assert not cores.training
    assert {(p.dtype, p.requires_grad) for p in cores.parameters()} == {(torch.float64, False)}


def test_a_shared_table_stays_shared():
    module = make_module()
    module.other.weight = module.net.embedding.weight
    callback = tensorize()
    callback.replace(module, make_graph(NODES))
    assert module.other is module.net.embedding
    assert len(callback.tables) == 1


def test_rows_follow_the_graph():
    module, graph = make_module(), make_graph(NODES)
    tensorize(seed=3).replace(module, graph)
    order = hierarchical_order(graph.edge_index, NODES, ROWS, seed=3)
    assert torch.equal(module.net.embedding.row_order.place.long(), order.place)


def test_a_sparse_adjacency_is_a_graph_too():
    graph = make_graph(NODES)
    adjacency = to_torch_csr_tensor(graph.edge_index.flip(0), size=(NODES, NODES))
    by_edges, by_adjacency = make_module(), make_module()
    tensorize().replace(by_edges, graph)
    graph.adj_t = adjacency
    del graph.edge_index
    tensorize().replace(by_adjacency, graph)
    places = [m.net.embedding.row_order.place for m in (by_edges, by_adjacency)]
    assert torch.equal(*places)


@pytest.mark.parametrize("order", ["random", "none"])
def test_orders_that_need_no_graph(order):
    module = make_module()
    tensorize(order=order).replace(module)
    assert isinstance(module.net.embedding, TTEmbedding)
    assert (module.net.embedding.row_order is None) == (order == "none")


def test_an_order_made_before_brings_its_factors():
    order = hierarchical_order(make_graph(NODES).edge_index, NODES, (4, 3, 6))
    module, callback = make_module(), tensorize(order=order, rows=None)
    callback.replace(module)
    assert callback.tables[0].rows == (4, 3, 6)
    assert isinstance(order, NodeOrder)


def test_edges_can_be_given_by_hand():
    graph, module = make_graph(NODES), make_module()
    trainer = make_trainer(tensorize(edge_index=graph.edge_index))
    trainer.fit(module, FullGraphLoader(graph))
    assert isinstance(module.net.embedding, TTEmbedding)


def test_compression_is_reached_by_larger_parts_where_it_must():
    module = L.LightningModule()
    module.table = nn.Embedding(2000, 16)
    edges = torch.stack([torch.arange(2000), torch.arange(2000).roll(1)])
    for compression in (10, 200):
        own = copy.deepcopy(module)
        callback = Tensorize(["table"], compression=compression, edge_index=edges)
        callback.replace(own)
        assert callback.tables[0].reduction >= compression


@pytest.mark.parametrize("size", [{"compression": 100}, {"max_bytes": 3840}])
def test_vectors_of_parts_count_in_a_size(size):
    module = nn.Module()
    module.table = nn.Embedding(2000, 48)
    edges = torch.stack([torch.arange(2000), torch.arange(2000).roll(1)])
    arguments = {"order": "metis", "parts": True, "edge_index": edges, "verbose": False, **size}
    for chosen in ({"modules": ["table"]}, {"tables": "largest:1"}):
        own = copy.deepcopy(module)
        Tensorize(**chosen, **arguments).replace(own)
        assert sum(p.numel() for p in own.table.parameters()) <= 960
        Tensorize(["table"], **arguments).replace(own)  # as it is already
    with pytest.raises(ValueError, match=r"allows 96 numbers, of which vectors of parts take"):
        Tensorize(["table"], **arguments | {"compression": 1000, "max_bytes": None}).replace(module)


def test_quantized_cores_are_tested_with_the_callback_in_the_trainer():
    module = make_module()
    trainer = fit(module, tensorize())
    before = trainer.test(module, Graphs(), verbose=False)[0]["test_loss"]
    module.net.embedding = module.net.embedding.quantized(8)
    after = trainer.test(module, Graphs(), verbose=False)[0]["test_loss"]
    assert isinstance(module.net.embedding, QuantizedTTEmbedding)
    assert after == pytest.approx(before, abs=0.02)


# --- where cores start ----------------------------------------------------------------------------


def test_a_fresh_start_is_as_large_as_the_table_was():
    module = make_module(embedding=nn.Embedding(NODES, WIDTH))
    with torch.no_grad():
        module.net.embedding.weight.mul_(0.01)
    spread = module.net.embedding.weight.square().mean().sqrt()
    tensorize(rank=8).replace(module, make_graph(NODES))
    rows = module.net.embedding.full_weight()
    assert 0.7 < rows.square().mean().sqrt() / spread < 1.4


@pytest.mark.parametrize("start", ["fresh", "table"])
@pytest.mark.parametrize("parts", [False, True])
def test_a_table_of_zeros_stays_so_and_learns(start, parts):
    module = make_module()
    nn.init.zeros_(module.net.embedding.weight)
    callback = tensorize(order="metis", start=start, parts=parts)
    callback.replace(module, make_graph(NODES))
    table = module.net.embedding
    assert not table.full_weight().any()
    optimizer = torch.optim.Adam(table.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (table.full_weight() - 1).square().mean().backward()
        optimizer.step()
    assert (table.full_weight() - 1).square().mean() < 0.5


def test_a_table_that_is_not_finite_is_refused():
    module = make_module()
    with torch.no_grad():
        module.net.embedding.weight[3, 1] = float("nan")
    with pytest.raises(ValueError, match="entries that are not finite"):
        tensorize().replace(module, make_graph(NODES))


def test_a_start_from_the_table_is_the_nearest_tensor_train():
    module = make_module()
    table = module.net.embedding.weight.detach().clone()
    exact, rough = (tensorize(rank=rank, start="table") for rank in (64, 2))
    exact.replace(module, make_graph(NODES))
    torch.testing.assert_close(module.net.embedding.full_weight(), table, atol=1e-5, rtol=1e-5)
    assert exact.tables[0].error < 1e-5
    rough.replace(make_module(), make_graph(NODES))
    assert 0.1 < rough.tables[0].error < 1


def test_a_start_by_structure_is_near_to_vectors_of_the_graph():
    module, graph = make_module(), make_graph(NODES)
    with torch.no_grad():
        module.net.embedding.weight.mul_(0.01)
    spread = module.net.embedding.weight.square().mean().sqrt()
    tensorize(rank=64, start="structure", seed=3).replace(module, graph)
    vectors = structural_vectors(graph.edge_index, NODES, WIDTH, seed=3)
    rows = module.net.embedding.full_weight()
    torch.testing.assert_close(rows, vectors * spread, atol=1e-6, rtol=1e-4)


def test_a_start_by_structure_wants_a_graph():
    with pytest.raises(ValueError, match=r"started by the structure of a graph, but .* nothing"):
        tensorize(order="none", start="structure").replace(make_module())


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_resumed_fit_goes_on_where_it_was(tmp_path):
    straight = make_module()
    fit(straight, tensorize(), max_epochs=4)
    first = make_module()
    trainer = fit(first, tensorize(), max_epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second = make_module(seed=5)
    fit(second, tensorize(), max_epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert same(weights_of(second), weights_of(straight))


def test_a_fit_of_a_module_that_another_trainer_tensorized_is_resumed(tmp_path):
    module = make_module()
    fit(module, tensorize(), max_epochs=1)
    trainer = fit(module, tensorize(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "second.ckpt")
    arguments = {"max_epochs": 2, "ckpt_path": tmp_path / "second.ckpt"}
    assert fit(make_module(seed=5), tensorize(), **arguments).current_epoch == 2


def test_a_callback_that_has_replaced_tables_goes_to_other_processes():
    callback = tensorize(order="none")
    callback.replace(make_module())
    assert pickle.loads(pickle.dumps(callback)).tables == callback.tables


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_checkpoint_loads_into_a_new_module(stage, tmp_path):
    module = make_module()
    trainer = fit(module, tensorize())
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)
    other = make_module(seed=5)
    run = getattr(make_trainer(tensorize()), stage)
    run(other, datamodule=Graphs(), ckpt_path=tmp_path / "model.ckpt")
    assert same(weights_of(other), weights_of(module))


def test_later_stages_leave_the_tensor_train_alone():
    module, callback = make_module(), tensorize()
    trainer = fit(module, callback)
    cores = module.net.embedding
    trainer.test(module, datamodule=Graphs(), verbose=False)
    make_trainer(tensorize()).predict(module, datamodule=Graphs())
    assert module.net.embedding is cores
    assert len(callback.tables) == 1


@pytest.mark.parametrize("parts", [False, [1, 2]])
def test_a_checkpoint_of_the_full_table_is_read_as_cores(parts, tmp_path):
    full = make_module()
    trainer = fit(full)
    trainer.save_checkpoint(tmp_path / "full.ckpt")
    callback = tensorize(rank=64, parts=parts)
    module = make_module(seed=5)
    tester = make_trainer(callback)
    out = tester.predict(module, datamodule=Graphs(), ckpt_path=tmp_path / "full.ckpt")
    full.eval()
    torch.testing.assert_close(out[0], full(make_graph(NODES)).detach(), atol=1e-4, rtol=1e-4)
    with pytest.raises(MisconfigurationException, match="trained without Tensorize"):
        fit(make_module(), tensorize(), max_epochs=4, ckpt_path=tmp_path / "full.ckpt")


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_a_checkpoint_is_read_beside_averaged_weights(stage, tmp_path):
    module, path = make_module(), tmp_path / "fit.ckpt"
    average = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    fit(module, tensorize(), average).save_checkpoint(path)
    trainer, other = make_trainer(tensorize(), copy.deepcopy(average)), make_module(1)
    getattr(trainer, stage)(other, datamodule=Graphs(), ckpt_path=path)
    assert isinstance(other.net.embedding, TTEmbedding)
    assert torch.equal(other.net.embedding.full_weight(), module.net.embedding.full_weight())


def test_a_checkpoint_of_other_factors_says_which(tmp_path):
    fit(make_module(), tensorize(rank=3)).save_checkpoint(tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"'net.embedding' has rows=\(5, 3, 5\).*rank=\[3, 3\]"):
        fit(make_module(), tensorize(rank=2), ckpt_path=tmp_path / "model.ckpt")


def test_the_module_can_be_copied_and_pickled():
    module = make_module()
    fit(module, tensorize())
    module.trainer = None
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert same(weights_of(twin), weights_of(module))
        twin.load_state_dict(module.state_dict())


# --- beside other callbacks -----------------------------------------------------------------------


@pytest.mark.parametrize("tensorize_first", [True, False])
def test_quantization_goes_with_it(tensorize_first):
    callbacks = [tensorize(), Quantize(BitPlan(features=4), verbose=False)]
    finetuning = QuantizationFinetuning(start_epoch=2, monitor="val_loss", mode="min")
    module = make_module()
    fit(module, *(callbacks if tensorize_first else callbacks[::-1]), finetuning, max_epochs=4)
    quantize = next(c for c in callbacks if isinstance(c, Quantize))
    assert isinstance(module.net.embedding, TTEmbedding)
    assert [row.site for row in quantize.ledger.rows] == ["conv"]
    assert quantize.ledger.average_bits == 4
    assert "net.embedding.cores.0" in finetuning.full_precision_weights


def test_tables_of_different_rank_take_a_callback_each():
    module = make_module()
    callbacks = [tensorize(["embedding"], rank=2), tensorize(["other"], rank=3)]
    fit(module, *callbacks)
    assert module.net.embedding.shape.ranks == (2, 2)
    assert module.other.shape.ranks == (3, 3)


def test_what_shrank_is_printed_once(capsys):
    module, callback = make_module(), tensorize(verbose=True)
    trainer = fit(module, callback)
    trainer.test(module, datamodule=Graphs(), verbose=False)
    printed = capsys.readouterr().out
    assert printed.count("Embedding tables as tensor trains") == 1
    (table,) = callback.tables
    parameters = sum(p.numel() for p in module.net.embedding.parameters())
    assert table.num_bytes == 4 * (parameters + NODES)  # the order has a number for each row
    assert table.saving == 4 * NODES * WIDTH / table.num_bytes < table.reduction
    for text in (f"{table.reduction:.1f}×", f"{table.num_bytes:,}", f"{table.saving:.1f}×"):
        assert text in printed


def test_a_table_that_grows_is_told():
    module = nn.ModuleList([nn.Embedding(7, 4), nn.Embedding(900, 8)])
    with pytest.warns(UserWarning, match=r"'0' has grown, from 28 numbers to \d+") as told:
        Tensorize(["0", "1"], rank=8, verbose=False).replace(module)
    assert len(told) == 1


# --- bad input ------------------------------------------------------------------------------------


def tied():
    module = make_module()
    module.decoder = nn.Linear(WIDTH, NODES, bias=False)
    module.decoder.weight = module.net.embedding.weight
    return module


def of_table(**arguments):
    return make_module(embedding=nn.Embedding(NODES, WIDTH, **arguments))


def hooked(register, of=lambda table: table):
    module = make_module()
    getattr(of(module.net.embedding), register)(lambda *_: None)
    return module


def counting():
    module = make_module()
    module.net.embedding.register_buffer("count", torch.zeros(NODES))
    return module


def pruned():
    module = make_module()
    nn.utils.prune.random_unstructured(module.net.embedding, "weight", amount=0.5)
    return module


def shaped():
    module = make_module()
    module.net.embedding.shape = (NODES, WIDTH)
    return module


class OwnWays(nn.Embedding):
    pass


class MadeInSetup(Vectors):
    def __init__(self):
        super().__init__()
        del self.net

    def setup(self, stage):
        self.net = nn.Module()
        self.net.embedding = nn.Embedding(NODES, WIDTH)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (make_module, {"modules": ["embeding"]}, r"names no nn.Embedding.*net.embedding \(60 × 8"),
        (make_module, {"modules": ["conv"]}, "'conv' is a SAGEConv; only nn.Embedding"),
        (tied, {}, "the table of 'net.embedding' is also 'decoder.weight'.*untie"),
        (lambda: of_table(max_norm=1.0), {}, "max_norm=1.0"),
        (lambda: make_module(embedding=OwnWays(NODES, WIDTH)), {}, "is a OwnWays"),
        (make_module, {"rows": (2, 3, 4)}, "'net.embedding': .*room for 24 embeddings, 36 too few"),
        (
            make_module,
            {"rank": None, "compression": 90, "rows": None},
            r"modules=\['embedding'\]: 'net.embedding': compression=90 cannot be met",
        ),
        (
            make_module,
            {"rank": None, "max_bytes": 8, "rows": None},
            "'net.embedding': max_bytes=8 cannot be met",
        ),
        (lambda: hooked("register_forward_hook"), {}, "'net.embedding' has hooks, which .* remove"),
        (lambda: hooked("register_forward_pre_hook"), {}, "has hooks"),
        (lambda: hooked("register_full_backward_hook"), {}, "has hooks"),
        (lambda: hooked("register_hook", lambda t: t.weight), {}, "has hooks of its weight"),
        (counting, {}, "has 'count' of its own"),
        (shaped, {}, "has an attribute 'shape' of its own"),
        (pruned, {}, "works its weight out of other parameters.*prune.remove"),
        (MadeInSetup, {}, "names no .* that MadeInSetup.setup makes are not there yet"),
    ],
)
def test_tables_that_cannot_be_replaced(module, arguments, message):
    module = module()
    before = dict(module.named_modules())
    with pytest.raises(ValueError, match=message):
        tensorize(**arguments).replace(module, make_graph(NODES))
    assert dict(module.named_modules()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modules": "embedding"}, "give a list of names"),
        ({"modules": []}, "give a list of names"),
        ({"order": "metiss"}, "order='metiss' is unknown. Did you mean 'metis'"),
        ({"start": "trained"}, "choose 'fresh', 'table', 'structure'"),
        ({"init": "zeros"}, "init='zeros'"),
        ({"order": "none", "parts": True}, "parts=True needs an order"),
    ],
)
def test_arguments_that_mean_nothing(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tensorize(**({"modules": ["embedding"]} | arguments))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (None, "datamodule has nothing as its attribute `data`.*edge_index=…"),
        ([1, 2], "has a list as its attribute `data`"),
        (make_graph(50), "'net.embedding' has 60 rows, the datamodule's graph 50 nodes"),
    ],
)
def test_a_graph_that_cannot_order_the_rows(graph, message):
    with pytest.raises(ValueError, match=message):
        tensorize(order="metis").replace(make_module(), graph)


def test_another_shape_than_the_tensor_train_at_hand_is_refused():
    module = make_module()
    tensorize(rank=2).replace(module, make_graph(NODES))
    with pytest.raises(ValueError, match="is a tensor train already"):
        tensorize(rank=3).replace(module, make_graph(NODES))


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_strategies_that_train_copies_are_refused(strategy):
    trainer = make_trainer(strategy=strategy, devices=2)
    with pytest.raises(MisconfigurationException, match=r"keep its full tables.*strategy='ddp'"):
        tensorize(order="none").setup(trainer, make_module(), "fit")
    replaced = make_module()
    tensorize(order="none").replace(replaced)
    tensorize(order="none").setup(trainer, replaced, "fit")


def test_strategies_that_shard_modules_are_refused():
    trainer = make_trainer(tensorize())
    trainer.strategy.__class__ = FSDPStrategy
    with pytest.raises(MisconfigurationException, match="FSDPStrategy, which shards"):
        tensorize().setup(trainer, make_module(), "fit")
