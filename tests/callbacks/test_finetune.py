import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import SGD, lr_scheduler
from torch_geometric.nn import GCN

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


class Record(L.Callback):
    """What a user could watch, one entry an epoch."""

    def __init__(self, callback):
        self.quantize = callback
        self.enabled, self.lr, self.weights, self.moments = [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.enabled.append(self.quantize.enabled)
            self.lr.append(trainer.optimizers[0].param_groups[0]["lr"])
            self.moments.append(bool(trainer.optimizers[0].state))

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.weights.append(weights_of(pl_module))


def finetune(module=None, *callbacks, max_epochs=6, scores=None, trainer=None, **arguments):
    """Fits with fine-tuning from epoch 3 on, unless told otherwise."""
    callback = quantize(2)
    if "start" not in arguments:
        arguments.setdefault("start_epoch", 3)
    finetuning = QuantizationFinetuning(**arguments)
    record = Record(callback)
    trainer = make_trainer(
        callback, finetuning, record, *callbacks, max_epochs=max_epochs, **trainer or {}
    )
    module = fit(trainer, module or make_module(scores=scores))
    return module, finetuning, record, trainer


def test_full_precision_before_the_turn_and_quantized_after():
    _, finetuning, record, _ = finetune(monitor="val_loss", mode="min")
    assert record.enabled == [False] * 3 + [True] * 3
    assert finetuning.turned_at == 3
    plain = Record(quantize(2))
    plain.quantize.enabled = False
    fit(make_trainer(plain, max_epochs=3), make_module())
    assert all(map(same, record.weights[:3], plain.weights))


@pytest.mark.parametrize(("mode", "best"), [("min", 1), ("max", 2)])
def test_the_turn_goes_back_to_the_best_weights(mode, best):
    _, finetuning, record, _ = finetune(
        scores=[2, 1, 3, 9, 9, 9], monitor="score", mode=mode, max_epochs=4
    )
    assert same(finetuning.full_precision_weights, record.weights[best])
    assert finetuning.full_precision_score == [2, 1, 3][best]
    assert same(record.weights[3], record.weights[best])  # left alone while it is measured


def test_the_first_quantized_epoch_only_measures():
    net = GCN(8, 16, 2, 3, norm="batch_norm")
    _, finetuning, record, _ = finetune(make_module(net=net), monitor="val_loss", mode="min")
    assert same(record.weights[3], finetuning.full_precision_weights)
    assert not same(record.weights[3], record.weights[4])
    assert not same(record.weights[4], record.weights[5])
    _, _, record, _ = finetune()  # nothing to measure by
    assert not same(record.weights[2], record.weights[3])


def test_measuring_waits_for_a_validation():
    _, finetuning, record, _ = finetune(
        monitor="val_loss",
        mode="min",
        start_epoch=2,
        max_epochs=6,
        trainer={"check_val_every_n_epoch": 2},
    )
    assert same(record.weights[1], finetuning.full_precision_weights)  # epochs 0-1 and 2-3
    assert not same(record.weights[1], record.weights[2])


@pytest.mark.parametrize(("mode", "best"), [("min", 4), ("max", 5)])
def test_the_fit_ends_with_the_best_quantized_weights(mode, best):
    scores = [0, 0, 0, 2, 1, 3, 2] if mode == "min" else [9, 9, 9, 2, 1, 3, 2]
    module, finetuning, record, _ = finetune(
        scores=scores, monitor="score", mode=mode, max_epochs=7
    )
    assert same(weights_of(module), record.weights[best])
    assert finetuning.best_score == scores[best]


def test_a_diverged_first_epoch_is_not_the_best():
    nan = float("nan")
    _, finetuning, record, _ = finetune(scores=[nan, 2, 3, nan, 5, 6], monitor="score", mode="min")
    assert finetuning.full_precision_score == 2
    assert same(finetuning.full_precision_weights, record.weights[1])
    assert finetuning.best_score == 5


@pytest.mark.parametrize("monitor", [None, "val_loss"])
def test_optimizers_start_afresh(monitor):
    module = make_module(optimizer=lambda p: SGD(p, lr=0.1, momentum=0.9))
    arguments = {} if monitor is None else {"monitor": monitor, "mode": "min"}
    _, _, record, trainer = finetune(module, **arguments)
    assert record.moments == [False, True, True, False, monitor is None, True]
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)


SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=5),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 10),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 6, eta_min=0.01),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, eta_min=0.01),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5, 4), lr_scheduler.StepLR(o, 1)], milestones=[4]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch))]
    ),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_the_scheduler_goes_on_at_scaled_rates(scheduler):
    rates = []
    for callbacks in ([QuantizationFinetuning(start_epoch=3, lr_scale=0.1)], []):
        record = Record(callback := quantize())
        module = make_module(optimizer=lambda p: SGD(p, lr=0.1, momentum=0.9), scheduler=scheduler)
        fit(make_trainer(callback, record, *callbacks, max_epochs=7), module)
        rates.append(record.lr)
    scaled, plain = rates
    assert scaled == pytest.approx(plain[:3] + [0.1 * lr for lr in plain[3:]])


def test_a_plateau_of_full_precision_is_none_of_the_quantized_phase():
    def scheduler(optimizer):
        return lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5, min_lr=0.02)

    module = make_module(optimizer=lambda p: SGD(p, lr=0.1), scheduler=scheduler)
    # Validation is perfect at first, so that no later epoch can be better.
    module.on_validation_epoch_end = lambda: trainer_metrics(module)
    _, _, record, trainer = finetune(module, max_epochs=6)
    plateau = trainer.lr_scheduler_configs[0].scheduler
    assert record.lr == pytest.approx([0.1, 0.1, 0.1, 0.005, 0.005, 0.005])
    assert plateau.best > 0
    assert plateau.min_lrs == pytest.approx([0.002])


def trainer_metrics(module):
    module.log("val_loss", [0.0, 1.0, 1.0, 1.0, 0.9, 0.8][module.current_epoch])


# --- early stopping -----------------------------------------------------------------------------

STOP = [1, 2, 2, 5, 4, 6, 6, 6, 6, 6]  # full precision stops after epoch 2, fine-tuning after 6


@pytest.mark.parametrize("at_train_end", [None, True, False])
@pytest.mark.parametrize("first", ["stopping", "finetuning"])
def test_early_stopping_brings_the_turn_and_then_starts_anew(first, at_train_end):
    stopping = EarlyStopping("score", patience=2, check_on_train_epoch_end=at_train_end)
    callback = quantize(2)
    finetuning = QuantizationFinetuning(start="best", patience=100)
    record = Record(callback)
    pair = [stopping, finetuning] if first == "stopping" else [finetuning, stopping]
    trainer = make_trainer(callback, *pair, record, max_epochs=10)
    module = fit(trainer, make_module(scores=STOP))
    assert record.enabled == [False] * 3 + [True] * 4
    assert finetuning.turned_at == 3
    assert finetuning.monitor == "score"
    assert stopping.stopped_epoch == 6
    assert stopping.best_score == 4
    assert same(weights_of(module), record.weights[4])


def test_a_threshold_reached_in_the_first_epoch_brings_the_turn():
    stopping = EarlyStopping("score", stopping_threshold=1.5, patience=9)
    _, finetuning, record, _ = finetune(None, stopping, scores=[1, 5, 5, 5], max_epochs=4)
    assert finetuning.turned_at == 1
    assert record.enabled == [False, True, True, True]


def test_early_stopping_is_let_go_after_the_fit():
    stopping = EarlyStopping("score", patience=2)
    with pytest.warns(UserWarning, match="ended before the quantized phase began"):
        finetune(None, stopping, scores=STOP, start="best", max_epochs=2)
    without = Record(quantize())
    fit(make_trainer(without, stopping, max_epochs=10), make_module(scores=STOP))
    assert len(without.weights) < 10


def test_patience_brings_the_turn():
    _, finetuning, record, _ = finetune(
        scores=[3, 1, 2, 2, 5, 5, 5],
        start="best",
        patience=2,
        monitor="score",
        mode="min",
        max_epochs=7,
    )
    assert finetuning.turned_at == 4
    assert same(finetuning.full_precision_weights, record.weights[1])


def test_fine_tuning_keeps_its_epochs_free_and_ends_after_them():
    arguments = {"start": "best", "epochs": 2, "monitor": "score", "mode": "min"}
    _, finetuning, record, _ = finetune(
        scores=[6, 5, 4, 3, 2, 1], patience=50, max_epochs=6, **arguments
    )
    assert (finetuning.turned_at, len(record.weights)) == (4, 6)
    _, finetuning, record, _ = finetune(
        scores=[1, 2, 3, 4, 4, 4], patience=1, max_epochs=6, **arguments
    )
    assert (finetuning.turned_at, len(record.weights)) == (2, 4)


# --- checkpoints --------------------------------------------------------------------------------


def test_the_best_checkpoint_is_of_a_quantized_epoch(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="score", mode="min", filename="{epoch}")
    scores = [1, 0, 2, 7, 5, 6]
    finetune(None, checkpoint, scores=scores, trainer={"enable_checkpointing": True})
    assert checkpoint.best_model_path.endswith("epoch=4.ckpt")
    assert checkpoint.best_model_score == 5


# --- ends that were not planned -----------------------------------------------------------------


def test_a_fit_that_ends_before_the_turn_warns_and_is_quantized():
    with pytest.warns(UserWarning, match="ended before the quantized phase began"):
        _, finetuning, record, _ = finetune(
            start="best", monitor="val_loss", mode="min", max_epochs=2
        )
    assert finetuning.turned_at is None
    assert record.quantize.enabled


def test_an_interrupted_fit_leaves_the_module_quantized():
    class Broken(Tiny):
        def on_train_epoch_end(self):
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        finetune(broken := Broken())
    assert broken.trainer.callbacks[0].enabled


def test_fast_dev_run_runs():
    with pytest.warns(UserWarning, match="ended before the quantized phase began"):
        finetune(start_epoch=150, monitor="val_loss", mode="min", trainer={"fast_dev_run": True})


def test_without_a_monitor_the_last_weights_stay():
    module, finetuning, record, _ = finetune()
    assert record.enabled == [False] * 3 + [True] * 3
    assert finetuning.best_score is None
    assert same(weights_of(module), record.weights[5])


def test_a_second_fit_starts_anew():
    callback, stopping = quantize(2), EarlyStopping("score", patience=2)
    finetuning = QuantizationFinetuning(start="best", patience=100)
    runs = []
    for _ in range(2):
        record = Record(callback)
        trainer = make_trainer(callback, finetuning, stopping, record, max_epochs=10)
        runs.append((fit(trainer, make_module(scores=STOP)), record))
    assert runs[0][1].enabled == runs[1][1].enabled == [False] * 3 + [True] * 4
    assert same(weights_of(runs[0][0]), weights_of(runs[1][0]))


# --- other ways to train ------------------------------------------------------------------------


class Manual(Tiny):
    wrapped = True

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=self.wrapped)
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class ManualRaw(Manual):
    wrapped = False


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Tiny, {"gradient_clip_val": 0.5}),
        (Tiny, {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"}),
        (Tiny, {"accumulate_grad_batches": 2}),
        (Tiny, {"precision": "bf16-mixed"}),
        (Manual, {}),
        (ManualRaw, {}),
    ],
)
def test_every_way_of_training_measures_then_trains(kind, arguments):
    torch.manual_seed(0)
    _, _, record, _ = finetune(kind(), monitor="val_loss", mode="min", trainer=arguments)
    best = [same(record.weights[3], w) for w in record.weights[:3]]
    assert any(best)
    assert not same(record.weights[3], record.weights[4])


def test_a_compiled_network_turns_too():
    torch._dynamo.reset()
    eager, compiled = make_module(), make_module()
    compiled.net = torch.compile(compiled.net, backend="aot_eager")
    for module in (eager, compiled):
        finetune(module, start_epoch=1, max_epochs=3)
    for a, b in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    torch._dynamo.reset()


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of the two"),
        ({"start_epoch": 3, "start": "best"}, "give one of the two"),
        ({"start": "worst"}, "can only be 'best'"),
        ({"start_epoch": -1}, "start_epoch=-1 must be 0 or more"),
        ({"start": "best", "patience": 0}, "patience=0 must be 1 or more"),
        ({"start_epoch": 3, "epochs": 0}, "epochs=0 must be 1 or more"),
        ({"start_epoch": 3, "lr_scale": 0.0}, r"lr_scale=0\.0 must be positive"),
        ({"start_epoch": 3, "mode": "best"}, "must be .min. or .max."),
        ({"start_epoch": 3, "monitor": "val_acc"}, "give both, mode=.max. for an accuracy"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(MisconfigurationException, match=message):
        QuantizationFinetuning(**arguments)


def test_fine_tuning_without_a_plan_is_refused():
    with pytest.raises(MisconfigurationException, match="add a Quantize callback"):
        fit(make_trainer(QuantizationFinetuning(start_epoch=1)), make_module())


def test_a_turn_after_the_end_is_refused():
    with pytest.raises(MisconfigurationException, match="start_epoch=6 is not below max_epochs=6"):
        finetune(start_epoch=6)


def test_waiting_for_the_best_without_a_monitor_is_refused():
    with pytest.raises(MisconfigurationException, match="start='best' needs a monitor"):
        finetune(start="best")


def averaging():
    """Callbacks that average weights, as far as this Lightning has them."""
    yield StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    if hasattr(L.pytorch.callbacks, "EMAWeightAveraging"):
        yield L.pytorch.callbacks.EMAWeightAveraging(decay=0.5)


@pytest.mark.parametrize("callback", averaging(), ids=lambda callback: type(callback).__name__)
def test_averaged_weights_are_those_of_no_epoch(callback):
    name = type(callback).__name__
    message = rf"QuantizationFinetuning keeps .* epoch, {name} averages .*start_epoch=0"
    for callbacks in ([callback, QuantizationFinetuning(1)], [QuantizationFinetuning(1), callback]):
        with pytest.raises(MisconfigurationException, match=message):
            fit(make_trainer(quantize(), *callbacks), make_module())
    module = fit(make_trainer(callback, max_epochs=3), make_module())  # the remedy
    averaged = weights_of(module)
    _, finetuning, record, _ = finetune(
        module, start_epoch=0, max_epochs=2, monitor="val_loss", mode="min"
    )
    assert same(finetuning.full_precision_weights, averaged)
    assert same(record.weights[0], averaged)
    assert record.enabled == [True, True]


def test_a_monitor_that_is_not_logged_is_refused_with_those_that_are():
    with pytest.raises(MisconfigurationException, match=r"'val_auc' is not logged.*: val_loss\."):
        finetune(monitor="val_auc", mode="min")


def test_a_monitor_without_validation_is_refused():
    callback, finetuning = (
        quantize(),
        QuantizationFinetuning(start_epoch=1, monitor="val_loss", mode="min"),
    )
    with pytest.raises(MisconfigurationException, match=r"'val_loss' is not logged in validation"):
        make_trainer(callback, finetuning).fit(make_module(), FullGraphLoader(make_graph()))
