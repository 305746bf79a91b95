"""Fits between fits: a module validated and fine-tuned by Trainers of its own, quietly."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torchmetrics import Metric

from lit_gnncompress.callbacks.fresh_start import restart_optimizer, scale_scheduler
from lit_gnncompress.callbacks.quantize import Quantize
from lit_gnncompress.plan import FULL_PRECISION, BitPlan
from lit_gnncompress.quantization.attention import can_quantize
from lit_gnncompress.quantization.sites import find_sites
from lit_gnncompress.storage.ledger import Ledger

Weights = dict[str, Tensor]

_SEED_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")


class InnerFits:
    """Measures plans for a module whose own fit is over.

    Each measurement has a fresh Trainer on a single device, in this process: the processes of the
    outer Trainer measure apart from each other, on all of the data.

    Args:
        trainer: The outer Trainer, in its ``on_fit_end``.
        pl_module: The module.
        quantize: Its quantization.
        monitor: Validation metric that is the score.
        mode: Whether the score is best at its ``"min"`` or ``"max"``.
        epochs: Length of a fine-tuning.
        lr_scale: Factor on the learning rates of a fine-tuning.
    """

    def __init__(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        quantize: Quantize,
        monitor: str,
        mode: Literal["min", "max"],
        epochs: int,
        lr_scale: float,
    ) -> None:
        self._outer, self._module, self._quantize = trainer, pl_module, quantize
        self._monitor, self._mode = monitor, mode
        self._epochs, self._lr_scale = epochs, lr_scale

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Makes inner fits quiet and without effect on the outer Trainer, the seeds and ranks."""
        module, quantize, outer = self._module, self._quantize, self._outer
        datamodule = getattr(outer, "datamodule", None)
        loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
        levels = [logger.level for logger in loggers]
        environment = {name: os.environ.get(name) for name in _SEED_VARIABLES}
        metrics = [m for m in module.modules() if isinstance(m, Metric)]
        synced = [metric.distributed_available_fn for metric in metrics]
        before = quantize.verbose, quantize.packed
        quantize.verbose = False
        # Packing replaces the inputs, which the next plan needs as they were.
        quantize.packed = False
        module.configure_callbacks = list  # type: ignore[method-assign, assignment]
        try:
            with isolate_rng(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="lightning")
                for logger in loggers:
                    logger.setLevel(logging.ERROR)
                for metric in metrics:
                    # Other ranks measure other plans: their counts do not belong together.
                    metric.distributed_available_fn = _never
                yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            for metric, available in zip(metrics, synced, strict=True):
                metric.distributed_available_fn = available
            for name, value in environment.items():
                if value is not None:
                    os.environ[name] = value
                else:
                    os.environ.pop(name, None)
            del module.configure_callbacks
            quantize.verbose, quantize.packed = before
            module.trainer = outer
            if datamodule is not None:
                datamodule.trainer = outer

    # --- measurements -----------------------------------------------------------------------

    def score(self, plan: BitPlan, weights: Weights, seed: int) -> float:
        """Validates ``weights`` under ``plan``; all at 32 bits is full precision.

        Raises:
            MisconfigurationException: A monitor that is not logged in validation.
        """
        self._begin(plan, weights, seed)
        trainer = self._trainer(self._quantize)
        trainer.validate(self._module, verbose=False, **self._data("val"))
        return _monitored(trainer, self._monitor)

    def finetuned(self, plan: BitPlan, weights: Weights, seed: int) -> tuple[float, Weights]:
        """Fine-tunes ``weights`` under ``plan``.

        Returns:
            The best score, that before fine-tuning included, and its weights; NaN and the weights
            before, where training diverged.
        """
        keeper = _KeepBest(self._monitor, self._mode, self._lr_scale)
        keeper.offer(self.score(plan, weights, seed), weights)
        self._begin(plan, weights, seed)
        trainer = self._trainer(self._quantize, keeper)
        try:
            trainer.fit(self._module, **self._data("train", "val"))
        except ValueError:
            # Features that are not finite are refused where they are quantized.
            if all(torch.isfinite(p).all() for p in self._module.parameters()):
                raise
        return keeper.score, keeper.weights

    def ledger(self, bits: int, splits: dict[str, Any], weights: Weights, seed: int) -> Ledger:
        """The ledger of a validation with ``bits`` everywhere.

        Args:
            bits: Bits of features and attention, or 32.
            splits: Degree buckets, as arguments of :class:`BitPlan`.
            weights: Weights of the module.
            seed: What to seed it with.
        """
        seed_everything(seed, verbose=False)
        self._quantize.remove()
        self._module.load_state_dict(weights)
        sites = find_sites(self._module)
        attention: dict[str, int | list[int]] = {
            site.name: bits
            for site, layer in sites.items()
            if site.component == "attention" and can_quantize(layer)
        }
        put_to_work(self._quantize, BitPlan(bits, attention or FULL_PRECISION, **splits))
        self._quantize.enabled = True
        trainer = self._trainer(self._quantize)
        trainer.validate(self._module, verbose=False, **self._data("val"))
        return self._quantize.ledger

    def _begin(self, plan: BitPlan, weights: Weights, seed: int) -> None:
        seed_everything(seed, verbose=False)
        self._module.load_state_dict(weights)
        put_to_work(self._quantize, plan)

    def _trainer(self, *callbacks: Callback) -> Trainer:
        outer = self._outer
        device = outer.strategy.root_device
        one = device.type in ("cpu", "mps")
        return Trainer(
            accelerator=outer.accelerator,
            devices=1 if one else [device.index or 0],
            plugins=[LightningEnvironment()],  # whatever started the outer one's processes
            precision=outer.precision,
            max_epochs=self._epochs,
            limit_train_batches=outer.limit_train_batches,
            limit_val_batches=outer.limit_val_batches,
            gradient_clip_val=outer.gradient_clip_val,
            gradient_clip_algorithm=outer.gradient_clip_algorithm,
            accumulate_grad_batches=outer.accumulate_grad_batches,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            # A validation would leave metrics with inference tensors, to which the validations of
            # a fit, which are no inference, cannot add.
            inference_mode=False,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=outer.default_root_dir,
        )

    def _data(self, *stages: str) -> dict[str, Any]:
        """Arguments of a fit or a validation: the data of the outer fit."""
        datamodule = getattr(self._outer, "datamodule", None)
        if datamodule is not None:
            return {"datamodule": datamodule}
        loops: dict[str, Any] = {
            "train": self._outer.fit_loop,
            "val": self._outer.fit_loop.epoch_loop.val_loop,
        }
        sources = {stage: loops[stage]._data_source.instance for stage in stages}
        if stages == ("val",):
            return {"dataloaders": _loaders(sources["val"])}
        names = {"train": "train_dataloaders", "val": "val_dataloaders"}
        return {names[stage]: _loaders(source) for stage, source in sources.items()}


class _KeepBest(Callback):
    """Scales the learning rates, and keeps the weights with the best score."""

    def __init__(self, monitor: str, mode: str, lr_scale: float) -> None:
        self._monitor, self._sign = monitor, 1 if mode == "max" else -1
        self._lr_scale = lr_scale
        self.score = math.nan
        self.weights: Weights = {}

    def offer(self, score: float, weights: Weights) -> None:
        """Keeps ``weights`` if they are better, or the first."""
        better = math.isnan(self.score) or self._sign * score > self._sign * self.score
        if not self.weights or (better and math.isfinite(score)):
            self.score, self.weights = score, weights

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            restart_optimizer(optimizer, self._lr_scale)
        for config in trainer.lr_scheduler_configs:
            scale_scheduler(config.scheduler, self._lr_scale)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.offer(_monitored(trainer, self._monitor), copy_of(pl_module))


def put_to_work(quantize: Quantize, plan: BitPlan) -> None:
    """Gives ``quantize`` another plan, which its next ``setup`` puts into the module."""
    quantize.remove()
    quantize.plan = plan
    full = {plan.features, plan.attention} == {FULL_PRECISION}
    quantize.enabled = not full


def copy_of(module: LightningModule) -> Weights:
    """The weights of a module, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def logged_by(trainer: Trainer) -> str:
    """Names of the metrics that a Trainer knows, for messages."""
    return ", ".join(sorted(trainer.callback_metrics)) or "none"


def _monitored(trainer: Trainer, monitor: str) -> float:
    if monitor not in trainer.callback_metrics:
        raise MisconfigurationException(
            f"monitor={monitor!r} is not logged in validation. Logged are: {logged_by(trainer)}."
        )
    return float(trainer.callback_metrics[monitor])


def _loaders(source: Any) -> Any:
    """Loaders as they were given to the outer fit; ``None`` where the module makes its own."""
    return None if isinstance(source, LightningModule) else source


def _never() -> bool:
    return False
