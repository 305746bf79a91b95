"""The largest tables of a module, those of a DLRM among them."""

import math

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_gnncompress.callbacks import Tensorize
from lit_gnncompress.data import CriteoDataModule
from lit_gnncompress.embedding import TTEmbedding, smallest_rows
from lit_gnncompress.models import DLRM
from tests.callbacks.tiny import make_trainer, same, weights_of

SIZES = (1000, 500, 200, 100, 50, 20)  # of the largest tables of generated clicks


@pytest.fixture(scope="module")
def data():
    return CriteoDataModule(batch_size=2000)


def make_dlrm(data, seed=0, **arguments):
    torch.manual_seed(seed)
    small = {"embedding_dim": 8, "bottom_mlp": (16,), "top_mlp": (32,), "lr": 0.05}
    return DLRM(data.num_embeddings, data.num_dense, **small | arguments)


def largest(count=3, rank=4, verbose=False, **arguments):
    return Tensorize(tables=f"largest:{count}", rank=rank, verbose=verbose, **arguments)


def fit(module, data, *callbacks, max_epochs=1, **arguments):
    trainer = make_trainer(*callbacks, max_epochs=max_epochs, num_sanity_val_steps=0)
    trainer.fit(module, datamodule=data, **arguments)
    return trainer


def sizes_of(callback):
    return [(table.name, table.num_embeddings) for table in callback.tables]


# --- which ones -----------------------------------------------------------------------------------


def test_the_largest_become_tensor_trains_and_those_too_small_stay(data):
    module, callback = make_dlrm(data), largest(6)
    callback.replace(module, datamodule=data)
    assert sizes_of(callback) == [(f"embeddings.{k}", SIZES[k]) for k in range(5)]
    assert all(table.reduction >= 2 for table in callback.tables)
    (left,) = callback.left_dense
    assert (left.name, left.num_embeddings, left.embedding_dim) == ("embeddings.5", 20, 8)
    cores = TTEmbedding(20, 8, rank=4)
    assert left.parameters == sum(core.numel() for core in cores.cores)
    assert type(module.embeddings[5]) is nn.Embedding


def test_a_size_is_numbers_and_a_shared_table_counts_once():
    module = nn.ModuleDict({
        "long": nn.Embedding(900, 2),
        "wide": nn.Embedding(300, 16),
        "twin": nn.Embedding(300, 16),
    })  # fmt: skip
    module["twin"].weight = module["wide"].weight
    callback = largest(2, rank=1)
    callback.replace(module)
    assert [table.name for table in callback.tables] == ["wide", "long"]
    assert module["twin"] is module["wide"]
    assert isinstance(module["long"], TTEmbedding)


def test_fewer_tables_than_asked_for():
    module = nn.Sequential(nn.Embedding(900, 8), nn.Linear(8, 1))
    callback = largest(5)
    assert len(callback.replace(module)) == 1
    with pytest.raises(ValueError, match=r"tables='largest:5': Linear has no nn.Embedding"):
        callback.replace(module[1])


@pytest.mark.parametrize("arguments", [{"parts": True}, {"learn_scale": True}, {}])
def test_what_it_would_cost_counts_everything(arguments):
    module = nn.ModuleList([nn.Embedding(12, 8)])
    callback = largest(1, order="random", rows=(2, 2, 3), **arguments)
    assert callback.replace(module) == []
    named = Tensorize(["0"], rank=4, order="random", rows=(2, 2, 3), verbose=False, **arguments)
    (made,) = named.replace(module)
    assert callback.left_dense[0].parameters == made.parameters


def test_a_compression_that_cannot_be_had_leaves_a_table_dense(data):
    module, callback = make_dlrm(data), largest(6, rank=None, compression=130)
    callback.replace(module)
    assert sizes_of(callback) == [("embeddings.0", 1000)]
    assert [left.num_embeddings for left in callback.left_dense] == list(SIZES[1:])
    assert callback.tables[0].reduction >= 130 > 500 * 8 / callback.left_dense[0].parameters
    assert {left.unmet for left in callback.left_dense} == {"compression=130"}
    message = r"'embeddings.1': compression=130 cannot be met \(500 x 8 in 30 parameters\)"
    with pytest.raises(ValueError, match=message):
        Tensorize(["embeddings.1"], compression=130).replace(make_dlrm(data))


def test_bytes_that_cannot_be_had_leave_a_table_dense_and_say_so(data, capsys):
    callback = largest(2, rank=None, max_bytes=8, verbose=True)
    callback.setup(make_trainer(), make_dlrm(data), "fit")
    assert callback.tables == []
    assert [left.unmet for left in callback.left_dense] == ["max_bytes=8"] * 2
    printed = " ".join(capsys.readouterr().out.split())
    assert "embeddings.0 (1,000 × 8) is left dense: its cores, too large for max_bytes=8" in printed


def test_what_does_not_fit_at_all_is_an_error(data):
    for size in ({"rank": 4}, {"rank": None, "compression": 2}, {"rank": None, "max_bytes": 8}):
        module = make_dlrm(data)
        with pytest.raises(ValueError, match=r"'embeddings.0': columns=\(3, 3, 1\)"):
            largest(columns=(3, 3, 1), **size).replace(module)
        assert not [m for m in module.modules() if isinstance(m, TTEmbedding)]


def test_a_table_with_ways_of_its_own_is_named():
    module = nn.ModuleList([nn.Embedding(900, 8, max_norm=1.0)])
    with pytest.raises(ValueError, match=r"tables='largest:1': '0' has max_norm=1\.0"):
        largest(1).replace(module)


@pytest.mark.parametrize("columns", [None, (2, 2, 2), (4, 1, 2)])
@pytest.mark.parametrize("order", ["none", "cooccurrence"])
def test_the_smallest_rows_of_each_table(data, columns, order):
    module, callback = make_dlrm(data), largest(3, rows="smallest", columns=columns, order=order)
    callback.replace(module, datamodule=data)
    balanced = largest(3, columns=columns, order=order)
    balanced.replace(make_dlrm(data), datamodule=data)
    for small, other in zip(callback.tables, balanced.tables, strict=True):
        assert small.parameters < other.parameters
        places = small.num_embeddings * (1.05 if order == "cooccurrence" else 1)
        assert places <= math.prod(small.rows) < 1.2 * places
        assert columns in (None, small.columns)
        if order == "none" and columns is not None:
            assert small.rows == smallest_rows(small.num_embeddings, columns, 4)
    assert largest(3, rows="smallest", columns=columns, order=order).replace(module) == []


# --- fits -----------------------------------------------------------------------------------------


def test_what_shrank_and_what_did_not_is_printed_once(data, capsys):
    module, callback = make_dlrm(data), largest(6, verbose=True)
    trainer = fit(module, data, callback)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("Embedding tables as tensor trains") == 1
    left = "embeddings.5 (20 × 8) is left dense: its cores would have 144 numbers"
    assert printed.count(left) == 1
    assert "No order for the rows of embeddings.0, embeddings.1" in printed
    tables = list(module.embeddings)
    trainer.validate(module, datamodule=data, verbose=False)
    assert list(module.embeddings) == tables
    assert "dense" not in capsys.readouterr().out


@pytest.mark.parametrize("optimizer", ["adagrad", "sgd"])
def test_tables_with_sparse_gradients(data, optimizer):
    module, callback = make_dlrm(data, sparse=True, optimizer=optimizer), largest()
    before = weights_of(module)
    fit(module, data, callback)
    assert sizes_of(callback) == [(f"embeddings.{k}", SIZES[k]) for k in range(3)]
    batch = data.rows.batch(slice(0, 50))
    module(batch.dense, batch.sparse).sum().backward()
    assert module.embeddings[3].weight.grad.is_sparse
    assert not module.embeddings[2].cores[0].grad.is_sparse
    assert not torch.equal(module.embeddings[3].weight, before["embeddings.3.weight"])


def test_it_learns(data):
    module = make_dlrm(data)
    trainer = fit(module, data, largest(5), max_epochs=3)
    (result,) = trainer.test(module, datamodule=data, verbose=False)
    assert result["test_auroc"] > 0.7


def test_an_optimizer_for_sparse_gradients_alone_is_refused(data):
    module = make_dlrm(data, sparse=True)
    for tables, refused in ((slice(2, 6), True), (slice(3, 6), False)):
        module = make_dlrm(data, sparse=True)

        def optimizers(module=module, tables=tables):
            module.embeddings[: tables.start].requires_grad_(False)  # which no optimizer holds
            rows = list(module.embeddings[tables].parameters())
            return torch.optim.SparseAdam(rows, lr=0.1)

        module.configure_optimizers = optimizers
        if refused:
            with pytest.raises(MisconfigurationException, match=r"largest:3'\) made are dense"):
                fit(module, data, largest())
        else:
            fit(module, data, largest())


def test_a_resumed_fit_goes_on_where_it_was(data, tmp_path):
    straight = make_dlrm(data)
    fit(straight, data, largest(order="frequency"), max_epochs=2)
    half = fit(make_dlrm(data), data, largest(order="frequency"), max_epochs=1)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = make_dlrm(data, seed=5)
    arguments = {"max_epochs": 2, "ckpt_path": tmp_path / "half.ckpt"}
    fit(resumed, data, largest(order="frequency"), **arguments)
    assert same(weights_of(resumed), weights_of(straight))
    with pytest.raises(MisconfigurationException, match=r"without Tensorize\(tables='largest:4'\)"):
        fit(make_dlrm(data), data, largest(4, order="frequency"), **arguments)


def test_a_fit_in_which_all_tables_stayed_dense_is_resumed(data, tmp_path):
    callback, module = largest(2, rank=64), make_dlrm(data)
    trainer = fit(module, data, callback)
    assert callback.tables == []
    assert len(callback.left_dense) == 2
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    arguments = {"max_epochs": 2, "ckpt_path": tmp_path / "a.ckpt"}
    assert fit(make_dlrm(data), data, largest(2, rank=64), **arguments).current_epoch == 2


def test_a_checkpoint_of_other_training_rows_brings_its_order(data, tmp_path):
    trained = make_dlrm(data)
    fit(trained, data, largest(order="cooccurrence")).save_checkpoint(tmp_path / "a.ckpt")
    others = CriteoDataModule(val_share=0.5)
    module = make_dlrm(data, seed=5)
    tester = make_trainer(largest(order="cooccurrence"))
    tester.test(module, datamodule=others, ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert same(weights_of(module), weights_of(trained))


def test_a_module_tensorized_with_a_graph_is_tested_without(data):
    module = nn.ModuleList([nn.Embedding(900, 8)])
    edges = torch.stack([torch.arange(900), torch.arange(900).roll(1)])
    largest(1, edge_index=edges).replace(module)
    table = module[0]
    assert table.row_order is not None
    assert largest(1).replace(module) == []
    assert module[0] is table
    with pytest.raises(ValueError, match="'0' is a tensor train already"):
        largest(1, rank=2).replace(module)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "modules=None and tables=None: give one of them"),
        ({"modules": ["a"], "tables": "largest:5"}, "tables='largest:5': give one of them"),
        ({"tables": "largest"}, "tables='largest': give 'largest:5'"),
        ({"tables": "largest:0"}, "tables='largest:0'"),
        ({"tables": 5}, "tables=5: give 'largest:5'"),
        ({"modules": ["a"], "rows": "least"}, "rows='least': give factors, or 'smallest'"),
        (
            {"modules": ["a"], "rows": "smallest", "compression": 9},
            r"rows='smallest' and compression=9: .* depends on the rank\. Give one",
        ),
        (
            {"modules": ["a"], "rows": "smallest", "rank": [2, 3]},
            r"rows='smallest' and rank=\[2, 3\]",
        ),
    ],
)
def test_arguments_that_mean_nothing(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tensorize(**arguments)
