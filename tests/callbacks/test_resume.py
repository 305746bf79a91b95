import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import SGD, lr_scheduler

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import QuantizationFinetuning
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from tests.callbacks.tiny import (
    Tiny,
    fit,
    make_graph,
    make_module,
    make_trainer,
    quantize,
    same,
    weights_of,
)


def run(folder, max_epochs=7, ckpt_path=None, *, early_stopping=False, **finetuning):
    """Fits a new module with new callbacks; a checkpoint of every epoch goes to ``folder``."""
    callbacks = [
        quantize(2),
        QuantizationFinetuning(
            **finetuning or {"start_epoch": 3, "monitor": "val_loss", "mode": "min"}
        ),
        ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1),
        *([EarlyStopping("score", patience=1)] if early_stopping else []),
    ]
    module = make_module(
        scores=[5, 4, 6, 3, 4, 9, 9],
        optimizer=lambda p: SGD(p, lr=0.1, momentum=0.9),
        scheduler=lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    )
    trainer = make_trainer(*callbacks, max_epochs=max_epochs, enable_checkpointing=True)
    fit(trainer, module, ckpt_path=ckpt_path)
    return module, callbacks[1], trainer


@pytest.mark.parametrize("epoch", range(6))
def test_a_resumed_fit_ends_where_the_uninterrupted_one_does(epoch, tmp_path):
    whole, of_whole, _ = run(tmp_path / "whole")
    checkpoint = tmp_path / f"whole/epoch={epoch}.ckpt"
    resumed, finetuning, _ = run(tmp_path / "resumed", ckpt_path=checkpoint)
    assert same(weights_of(whole), weights_of(resumed))
    assert finetuning.turned_at == 3
    assert finetuning.best_score == of_whole.best_score
    assert finetuning.full_precision_score == of_whole.full_precision_score
    assert same(finetuning.full_precision_weights, of_whole.full_precision_weights)
    last = [torch.load(tmp_path / f / "epoch=6.ckpt") for f in ("whole", "resumed")]
    assert same(*(checkpoint["state_dict"] for checkpoint in last))


def test_a_checkpoint_of_the_last_epoch_leaves_the_best_weights(tmp_path):
    arguments, path = (
        {"start_epoch": 3, "monitor": "score", "mode": "min"},
        tmp_path / "epoch=6.ckpt",
    )
    whole, _, _ = run(tmp_path, **arguments)
    assert not same(weights_of(whole), torch.load(path)["state_dict"])
    resumed, _, trainer = run(tmp_path / "resumed", ckpt_path=path, **arguments)
    assert same(weights_of(whole), weights_of(resumed))
    assert trainer.callbacks[0].enabled


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_turn_that_was_due_is_made_after_resuming(epoch, tmp_path):
    arguments = {"start": "best", "patience": 100, "early_stopping": True}
    whole, of_whole, trainer = run(tmp_path / "whole", **arguments)
    assert of_whole.turned_at == 3
    checkpoint = tmp_path / f"whole/epoch={epoch}.ckpt"
    resumed, finetuning, resumed_trainer = run(tmp_path / "resumed", 7, checkpoint, **arguments)
    assert finetuning.turned_at == 3
    assert resumed_trainer.current_epoch == trainer.current_epoch == 5
    assert same(weights_of(whole), weights_of(resumed))


def test_a_stopped_fit_goes_on(tmp_path):
    whole, _, _ = run(tmp_path / "whole")
    with pytest.warns(UserWarning, match="ended before"):
        run(tmp_path / "part", 4, start="best", patience=100, monitor="val_loss", mode="min")
    resumed, _, _ = run(tmp_path / "part", ckpt_path=tmp_path / "part/epoch=2.ckpt")
    assert same(weights_of(whole), weights_of(resumed))


def test_a_checkpoint_loads_by_itself_and_is_not_quantized(tmp_path):
    graph = make_graph()
    module, _, trainer = run(tmp_path)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    loaded = Tiny.load_from_checkpoint(tmp_path / "end.ckpt", weights_only=True)
    assert same(weights_of(loaded), weights_of(module))
    with torch.no_grad():
        quantized = module.eval()(graph)
        trainer.callbacks[0].remove()
        assert torch.equal(loaded.eval()(graph), module(graph))
        assert not torch.equal(loaded(graph), quantized)


def test_test_of_a_checkpoint_is_quantized(tmp_path):
    module, _, trainer = run(tmp_path)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    loader = FullGraphLoader(make_graph())
    callback, other = quantize(2), make_module(seed=9)
    predicted = make_trainer(callback).predict(other, loader, ckpt_path=tmp_path / "end.ckpt")[0]
    with torch.no_grad():
        assert torch.equal(predicted, module.eval()(make_graph()))
    assert callback.ledger.average_bits == 2


@pytest.mark.parametrize("epoch", [1, 5])
def test_a_fit_after_the_test_of_a_checkpoint_starts_anew(epoch, tmp_path):
    whole, _, trainer = run(tmp_path)
    loader = FullGraphLoader(make_graph())
    trainer.test(make_module(), loader, ckpt_path=tmp_path / f"epoch={epoch}.ckpt", verbose=False)
    module = make_module(optimizer=whole.optimizer, scheduler=whole.scheduler)
    again = make_trainer(*trainer.callbacks[:2], max_epochs=7)
    assert same(weights_of(fit(again, module)), weights_of(whole))


def test_another_plan_is_refused_in_fit_and_welcome_in_test(tmp_path):
    run(tmp_path)
    checkpoint = tmp_path / "epoch=6.ckpt"
    other = quantize(BitPlan(features={"convs.0": 8, "convs.1": 4}))
    with pytest.raises(MisconfigurationException, match=r"plan \{'features': 2\}.*'convs\.0': 8"):
        fit(make_trainer(other, max_epochs=9), make_module(), ckpt_path=checkpoint)
    loader = FullGraphLoader(make_graph())
    make_trainer(other).test(make_module(), loader, ckpt_path=checkpoint, verbose=False)
    assert [row.bits for row in other.ledger.rows] == [8, 4]


def test_a_full_precision_checkpoint_can_be_continued(tmp_path):
    class Last(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "plain.ckpt")

    fit(make_trainer(Last(), max_epochs=2), make_module())
    callback = quantize(2)
    finetuning = QuantizationFinetuning(start_epoch=3)
    trainer = make_trainer(callback, finetuning, max_epochs=5)
    fit(trainer, make_module(), ckpt_path=tmp_path / "plain.ckpt")
    assert finetuning.turned_at == 3
    assert callback.ledger.average_bits == 2
