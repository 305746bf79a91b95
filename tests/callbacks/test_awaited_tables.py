"""Validation, test and prediction, which train nothing."""

import copy
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_gnncompress.callbacks import Tensorize
from lit_gnncompress.embedding import TTEmbedding
from tests.callbacks.test_tensorize import NODES, Graphs, fit, make_module, tensorize
from tests.callbacks.tiny import make_trainer, same, weights_of

STAGES = ["validate", "test", "predict"]


class WithoutGraph(L.LightningDataModule):
    """The same batches, but no attribute that has the graph."""

    def loader(self):
        return Graphs().loader()

    val_dataloader = test_dataloader = predict_dataloader = loader


def run(stage, module, *callbacks, **arguments):
    getattr(make_trainer(*callbacks), stage)(module, datamodule=WithoutGraph(), **arguments)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("start", ["fresh", "structure"])
def test_a_trained_table_does_not_become_random(stage, start):
    module = make_module()
    before = weights_of(module)
    message = f"'net.embedding' is a full table.* start='{start}'.*give ckpt_path, take"
    with pytest.raises(MisconfigurationException, match=message):
        run(stage, module, tensorize(start=start))
    assert same(weights_of(module), before)
    assert len(module._load_state_dict_pre_hooks) == 1  # nothing of the Trainer is left in it


@pytest.mark.parametrize("stage", STAGES)
def test_a_start_from_the_table_needs_no_checkpoint(stage):
    module, callback = make_module(), tensorize(rank=64, start="table")
    table = module.net.embedding.weight.detach().clone()
    run(stage, module, callback)
    torch.testing.assert_close(module.net.embedding.full_weight(), table, atol=1e-5, rtol=1e-5)
    assert callback.tables[0].error < 1e-5
    fit(module, tensorize(rank=64), max_epochs=1)  # it can be trained on


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("arguments", [{"rank": 3, "rows": None}, {"order": "metis"}, {}])
def test_a_checkpoint_brings_its_tables_without_the_graph(stage, arguments, tmp_path, capsys):
    trained = make_module()
    fit(trained, tensorize(parts=True)).save_checkpoint(tmp_path / "a.ckpt")
    module, callback = make_module(seed=5), tensorize(verbose=True, **arguments)
    run(stage, module, callback, ckpt_path=tmp_path / "a.ckpt")
    assert same(weights_of(module), weights_of(trained))
    (made,) = callback.tables
    assert (made.name, made.order, made.ranks) == ("net.embedding", "saved", (2, 2))
    assert capsys.readouterr().out.count("Embedding tables as tensor trains") == 1
    copy.deepcopy(module.net).load_state_dict(trained.net.state_dict())
    cores = module.net.embedding
    run(stage, module, callback, ckpt_path=tmp_path / "a.ckpt")  # once more
    assert module.net.embedding is cores


def test_the_largest_that_stayed_dense_stay(tmp_path):
    class Two(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.tables = nn.ModuleList([nn.Embedding(900, 8), nn.Embedding(NODES, 4)])

        def predict_step(self, batch, batch_idx):
            return self.tables[0](batch).sum(1) + self.tables[1](batch).sum(1)

    trained, callback = Two(), Tensorize(tables="largest:2", rank=8, verbose=False)
    callback.replace(trained)
    loader = torch.utils.data.DataLoader(torch.arange(20), batch_size=10)
    trainer = make_trainer(callback)
    expected = trainer.predict(trained, loader)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = Tensorize(tables="largest:2", rank=8, verbose=False)
    module = Two()
    found = make_trainer(other).predict(module, loader, ckpt_path=tmp_path / "a.ckpt")
    assert torch.equal(torch.cat(found), torch.cat(expected))
    assert [type(table) for table in module.tables] == [TTEmbedding, nn.Embedding]
    assert [left.name for left in other.left_dense] == ["tables.1"]


def test_one_table_of_cores_and_one_that_is_full(tmp_path):
    trained = make_module()
    fit(trained, tensorize()).save_checkpoint(tmp_path / "a.ckpt")
    module, callback = make_module(seed=5), tensorize(["other", "embedding"], rank=64)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*has a full table.*")
        make_trainer(callback).test(
            module, datamodule=Graphs(), ckpt_path=tmp_path / "a.ckpt", verbose=False
        )
    assert torch.equal(module.net.embedding.full_weight(), trained.net.embedding.full_weight())
    weight = trained.other.weight.detach()
    torch.testing.assert_close(module.other.full_weight(), weight, atol=1e-5, rtol=1e-5)
    assert [(table.name, table.order) for table in callback.tables] == [
        ("other", "metis"),
        ("net.embedding", "saved"),
    ]
    full, saved = callback.tables
    assert full.error < 1e-5
    assert saved.error is None


def test_a_frozen_table_takes_what_a_checkpoint_brings(tmp_path):
    trained = make_module()
    trained.net.embedding.requires_grad_(False)
    fit(trained, tensorize(start="table")).save_checkpoint(tmp_path / "a.ckpt")
    module = make_module(seed=5)
    module.net.embedding.requires_grad_(False)
    run("test", module, tensorize(), ckpt_path=tmp_path / "a.ckpt")
    assert same(weights_of(module), weights_of(trained))
    assert not module.net.embedding.cores[0].requires_grad
