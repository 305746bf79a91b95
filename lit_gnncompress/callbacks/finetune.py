"""QuantizationFinetuning: full precision first, then quantized from the best weights."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lit_gnncompress.callbacks.fresh_start import (
    forget_scores,
    restart_optimizer,
    scale_scheduler,
)
from lit_gnncompress.callbacks.quantize import Calibration, Quantize
from lit_gnncompress.callbacks.trainers import callbacks_of, check_no_averaging

Weights = dict[str, Tensor]


class QuantizationFinetuning(Callback):
    """Trains in full precision first, then fine-tunes under the plan of :class:`Quantize`.

    At the turn the weights of the best full-precision epoch come back, optimizers start afresh
    with their learning rates (and those of their schedulers) scaled, and early stopping,
    checkpoints and ``ReduceLROnPlateau`` forget their best scores, which are those of another
    model. The first quantized epoch is undone before its validation, which measures the plan
    without fine-tuning. At the end of the fit the module holds the best quantized weights, so that
    fine-tuning is kept only if it helped.

    Full-precision checkpoints stay on disk, unless a constant ``filename`` and
    ``enable_version_counter=False`` let the quantized one replace them: after the fit,
    ``best_model_path`` of a ModelCheckpoint is a quantized one. Checkpoints hold the best weights
    of both phases, so that a fit can resume.

    An :class:`~lightning.pytorch.callbacks.EarlyStopping` that would end the full-precision phase
    brings the turn instead.

    Args:
        start_epoch: First quantized epoch. Give this or ``start``.
        start: ``"best"``: turn once ``monitor`` has not improved for ``patience`` epochs, or when
            only ``epochs`` of the Trainer's ``max_epochs`` are left.
        patience: Epochs without improvement, for ``start="best"``.
        epochs: Length of the fine-tuning; ``None`` for all that is left.
        lr_scale: Factor on the learning rates. Training on at the full rate can hurt.
        monitor: Logged validation metric that tells which weights are best; ``None`` for that of
            the Trainer's EarlyStopping or ModelCheckpoint. Where these have none either,
            fine-tuning goes on from the weights at hand and keeps the last.
        mode: Whether the ``monitor`` is best at its ``"min"`` or ``"max"``; goes with it.

    Attributes:
        full_precision_weights: Best weights of the full-precision phase, on the CPU.
        full_precision_score: Their ``monitor``.
        best_score: ``monitor`` of the weights that the module holds after the fit.
        turned_at: First quantized epoch, once it has begun.

    Raises:
        MisconfigurationException: Arguments that contradict each other or the Trainer, a
            ``monitor`` that is not logged, or a callback that averages weights.
    """

    def __init__(
        self,
        start_epoch: int | None = None,
        start: Literal["best"] | None = None,
        patience: int = 50,
        epochs: int | None = None,
        lr_scale: float = 0.1,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
    ) -> None:
        super().__init__()
        if (start_epoch is None) == (start is None):
            raise MisconfigurationException(
                f"start_epoch={start_epoch}, start={start!r}: give one of the two, an epoch or "
                f"start='best'."
            )
        if start not in (None, "best"):
            raise MisconfigurationException(f"start={start!r} can only be 'best'.")
        for name, value, least in (
            ("start_epoch", start_epoch, 0),
            ("patience", patience, 1),
            ("epochs", epochs, 1),
        ):
            if value is not None and value < least:
                raise MisconfigurationException(f"{name}={value} must be {least} or more.")
        if not lr_scale > 0:
            raise MisconfigurationException(f"lr_scale={lr_scale} must be positive.")
        if mode not in ("min", "max", None):
            raise MisconfigurationException(f"mode={mode!r} must be 'min' or 'max'.")
        if (monitor is None) != (mode is None):
            raise MisconfigurationException(
                f"monitor={monitor!r}, mode={mode!r}: give both, mode='max' for an accuracy and "
                f"'min' for a loss, or none."
            )
        self.start_epoch = start_epoch
        self.start = start
        self.patience = patience
        self.epochs = epochs
        self.lr_scale = lr_scale
        self.monitor = monitor
        self.mode = mode
        self.full_precision_weights: Weights | None = None
        self.full_precision_score: float | None = None
        self.best_score: float | None = None
        self.turned_at: int | None = None
        self._best_weights: Weights | None = None
        self._best_ranges: Calibration = {}
        self._epochs_since_best = 0
        self._turn_next = False

    # --- phases -----------------------------------------------------------------------------

    @property
    def quantized(self) -> bool:
        """Whether the turn has come."""
        return self.turned_at is not None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the Trainer, and gets between it and its early stopping."""
        if stage != "fit":
            return
        quantizers = [c for c in callbacks_of(trainer) if isinstance(c, Quantize)]
        if not quantizers:
            raise MisconfigurationException(
                "QuantizationFinetuning needs a plan: add a Quantize callback to the Trainer."
            )
        self._quantize = quantizers[0]
        check_no_averaging(trainer, self, "QuantizationFinetuning(start_epoch=0, …)")
        if self.monitor is None:
            self._take_monitor(trainer)
        if self.start == "best" and self.monitor is None:
            raise MisconfigurationException(
                "start='best' needs a monitor: QuantizationFinetuning(monitor='val_acc', "
                "mode='max', …), with a metric that the module logs in validation."
            )
        last = trainer.max_epochs
        too_late = last is not None and last >= 0 and (self.start_epoch or 0) >= last
        if too_late and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise MisconfigurationException(
                f"start_epoch={self.start_epoch} is not below max_epochs={last}: quantization "
                f"would never begin."
            )
        for stopping in trainer.early_stopping_callbacks:
            for hook in _STOPPING_HOOKS:
                # No hook of this callback comes between an early stopping that looks at the end
                # of the epoch (the default) and the end of the fit.
                setattr(stopping, hook, partial(_turn_instead_of_stop, self, stopping, hook))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets go of the early stopping."""
        for stopping in trainer.early_stopping_callbacks:
            for hook in _STOPPING_HOOKS:
                vars(stopping).pop(hook, None)

    def _take_monitor(self, trainer: Trainer) -> None:
        for callback in [*trainer.early_stopping_callbacks, *trainer.checkpoint_callbacks]:
            monitor = getattr(callback, "monitor", None)
            if monitor is not None:
                self.monitor, self.mode = monitor, callback.mode  # type: ignore[attr-defined]
                return

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts in full precision, or where the checkpoint was."""
        if trainer.current_epoch == 0 and not self._resumed:
            self._begin_anew()
            forget_scores(trainer)
        self._resumed = self._concluded = False
        self._quantize.enabled = self.quantized

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the turn when it is due."""
        if self.quantized:
            return
        epoch, last = trainer.current_epoch, trainer.max_epochs
        due = self._turn_next or epoch == self.start_epoch
        if self.start == "best" and self.epochs is not None and last is not None and last > 0:
            due = due or epoch >= last - self.epochs
        if due:
            self._turn(trainer, pl_module)

    def _turn(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is not None and self._best_weights is None and trainer.current_epoch > 0:
            self._refuse_monitor(trainer)
        origin = "the weights at hand"
        if self._best_weights is not None:
            origin = f"the best weights ({self.monitor} {self.best_score:.4g})"
            pl_module.load_state_dict(self._best_weights)
            self.full_precision_weights = self._best_weights
        else:
            self.full_precision_weights = _copy(pl_module)
        self.full_precision_score = self.best_score
        self.turned_at = trainer.current_epoch
        self.best_score, self._best_weights, self._turn_next = None, None, False
        self._quantize.enabled = True
        for optimizer in trainer.optimizers:
            restart_optimizer(optimizer, self.lr_scale)
        for config in trainer.lr_scheduler_configs:
            scale_scheduler(config.scheduler, self.lr_scale)
        forget_scores(trainer)
        rank_zero_info(f"Epoch {self.turned_at}: quantization begins from {origin}.")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Undoes what was trained so far under the plan, which is first measured as it is."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and self.quantized and self.monitor is not None and self.best_score is None:
            assert self.full_precision_weights is not None
            pl_module.load_state_dict(self.full_precision_weights)
            for optimizer in trainer.optimizers:
                optimizer.state = defaultdict(dict)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the weights where they are the best of their phase."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        if self.monitor is None or trainer.sanity_checking or not fitting:
            return
        if self.monitor not in trainer.callback_metrics:
            self._refuse_monitor(trainer)
        score = float(trainer.callback_metrics[self.monitor])
        # Ranks must agree even where the metric was not synchronised.
        score = trainer.strategy.broadcast(score)
        if self._is_best(score):
            self.best_score, self._best_weights = score, _copy(pl_module)
            self._best_ranges = self._quantize.calibration
            self._epochs_since_best = 0
        else:
            self._epochs_since_best += 1
        waited = self.start == "best" and self._epochs_since_best >= self.patience
        self._turn_next = not self.quantized and (self._turn_next or waited)

    def _is_best(self, score: float) -> bool:
        best = self.best_score
        if best is None or math.isnan(best):
            return True
        return score > best if self.mode == "max" else score < best

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the fine-tuning after its epochs."""
        if self.turned_at is not None and self.epochs is not None:
            trainer.should_stop |= trainer.current_epoch + 1 >= self.turned_at + self.epochs

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the best quantized weights in the module."""
        self._concluded = True
        if not self.quantized:
            rank_zero_warn(
                "The fit ended before the quantized phase began: the module is quantized without "
                "fine-tuning. Raise max_epochs, or start earlier."
            )
        if self._best_weights is not None:
            pl_module.load_state_dict(self._best_weights)
            self._quantize.calibration = self._best_ranges
        self._quantize.enabled = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Does the same where a checkpoint of the last epoch left nothing to train."""
        if not self._concluded:
            self.on_train_end(trainer, pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leaves the module quantized, wherever the fit was interrupted."""
        for callback in callbacks_of(trainer):
            if isinstance(callback, Quantize):
                callback.enabled = True

    def _refuse_monitor(self, trainer: Trainer) -> None:
        logged = ", ".join(sorted(trainer.callback_metrics)) or "none"
        raise MisconfigurationException(
            f"monitor={self.monitor!r} is not logged in validation, or no validation has run "
            f"before epoch {trainer.current_epoch}. Logged are: {logged}."
        )

    # --- state ------------------------------------------------------------------------------

    _STATE = (
        "full_precision_weights", "full_precision_score", "best_score", "turned_at",
        "_best_weights", "_best_ranges", "_epochs_since_best", "_turn_next",
    )  # fmt: skip
    _resumed = _concluded = False

    def state_dict(self) -> dict[str, Any]:
        """Phase, scores and best weights."""
        return {name: getattr(self, name) for name in self._STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where :meth:`state_dict` was taken."""
        for name in self._STATE:
            setattr(self, name, state_dict[name])

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tells a fit that resumes from a test of the checkpoint."""
        self._resumed = trainer.state.fn == TrainerFn.FITTING

    def _begin_anew(self) -> None:
        self.full_precision_weights = self.full_precision_score = None
        self.best_score = self.turned_at = self._best_weights = None
        self._epochs_since_best, self._turn_next = 0, False


def _copy(pl_module: LightningModule) -> Weights:
    return {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}


_STOPPING_HOOKS = ("on_validation_end", "on_train_epoch_end")


def _turn_instead_of_stop(
    finetuning: QuantizationFinetuning,
    stopping: EarlyStopping,
    hook: str,
    trainer: Trainer,
    pl_module: LightningModule,
) -> None:
    """Stands in for a hook of ``stopping``: in full precision, its stop is the turn."""
    stops_already = trainer.should_stop
    getattr(type(stopping), hook)(stopping, trainer, pl_module)
    if trainer.should_stop and not stops_already and not finetuning.quantized:
        trainer.should_stop = False
        finetuning._turn_next = True
