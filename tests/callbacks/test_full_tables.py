"""What is lost where cores read a full table."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from lit_gnncompress.callbacks import Tensorize
from tests.callbacks.test_tensorize import fit, make_module, tensorize


def share_lost(table, weight):
    return float((table.full_weight().detach() - weight).norm() / weight.norm())


def test_a_considerable_loss_is_told_and_kept():
    module, callback = make_module(), tensorize(["embedding", "other"], rank=2, order="none")
    full = {name: value.clone() for name, value in module.state_dict().items()}
    callback.replace(module)
    assert [table.error for table in callback.tables] == [None, None]
    with pytest.warns(
        UserWarning, match=r"'net.embedding': the state has a full .*\[2, 2\] do not"
    ):
        module.load_state_dict(full)
    for table, key in zip(callback.tables, ("net.embedding", "other"), strict=True):
        lost = share_lost(module.get_submodule(key), full[f"{key}.weight"])
        assert lost > 0.5
        assert table.error == pytest.approx(lost, rel=1e-4)
    assert not [key for key in module.state_dict() if "lost" in key]


def test_copies_know_what_was_lost():
    module = nn.ModuleList([nn.Embedding(200, 8)])
    full, callback = copy.deepcopy(module.state_dict()), Tensorize(["0"], rank=2, verbose=False)
    callback.replace(module)
    with pytest.warns(UserWarning, match="'0': the state has a full table"):
        module.load_state_dict(full)
    lost = callback.tables[0].error
    assert lost > 0.5
    for again in (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        assert again(module)[0].lost_share == lost
        assert again(callback).tables[0].error == lost


def test_next_to_no_loss_is_not_told():
    module, callback = make_module(), tensorize(rank=64, order="none")
    full = copy.deepcopy(module.state_dict())
    callback.replace(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.load_state_dict(full)
    assert callback.tables[0].error < 1e-5


def test_a_shared_table_is_read_and_told_once():
    module = nn.ModuleList([nn.Embedding(200, 8), nn.Embedding(200, 8)])
    module[1].weight = module[0].weight
    full = copy.deepcopy(module.state_dict())
    Tensorize(["0"], rank=2, verbose=False).replace(module)
    with pytest.warns(UserWarning, match="'0': the state has a full table") as told:
        module.load_state_dict(full)
    assert len(told) == 1


def test_a_checkpoint_of_full_tables_says_what_its_test_lost(tmp_path, capsys):
    full = make_module()
    fit(full).save_checkpoint(tmp_path / "full.ckpt")
    module, callback = make_module(seed=5), tensorize(verbose=True)
    trainer = fit(make_module())
    trainer.callbacks.append(callback)
    with pytest.warns(UserWarning, match="'net.embedding': the state has a full table"):
        trainer.test(module, datamodule=trainer.datamodule, ckpt_path=tmp_path / "full.ckpt")
    lost = share_lost(module.net.embedding, full.net.embedding.weight)
    assert callback.tables[0].error == pytest.approx(lost, rel=1e-4)
    assert f"{lost:.1%}" in capsys.readouterr().out


def test_a_table_of_zeros_loses_nothing():
    module = nn.ModuleList([nn.Embedding(200, 8)])
    nn.init.zeros_(module[0].weight)
    full, callback = copy.deepcopy(module.state_dict()), Tensorize(["0"], rank=2, verbose=False)
    callback.replace(module)
    module.load_state_dict(full)
    assert callback.tables[0].error is None
    assert torch.count_nonzero(module[0].full_weight()) == 0
