"""What starts anew when a fit turns from full precision to quantized."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau


def restart_optimizer(optimizer: Optimizer, lr_scale: float) -> None:
    """Forgets the optimizer's state and scales its learning rates."""
    optimizer.state = defaultdict(dict)  # moments of other weights
    for group in optimizer.param_groups:
        for name in ("lr", "initial_lr", "max_lr", "min_lr"):  # the latter are OneCycleLR's
            if name in group:
                group[name] = group[name] * lr_scale


def scale_scheduler(scheduler: Any, lr_scale: float) -> None:
    """Scales the rates that a scheduler starts from and goes to, so that it keeps the scale."""
    for name in ("base_lrs", "max_lrs", "min_lrs", "_last_lr"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, [lr * lr_scale for lr in getattr(scheduler, name)])
    if hasattr(scheduler, "eta_min"):
        scheduler.eta_min *= lr_scale
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler._reset()
    for part in getattr(scheduler, "_schedulers", ()):
        scale_scheduler(part, lr_scale)


def forget_scores(trainer: Trainer) -> None:
    """Scores of full precision are no measure for the quantized phase."""
    for stopping in trainer.early_stopping_callbacks:
        stopping.wait_count = stopping.stopped_epoch = 0
        stopping.best_score = torch.tensor(torch.inf if stopping.mode == "min" else -torch.inf)
    for checkpoint in trainer.checkpoint_callbacks:
        if isinstance(checkpoint, ModelCheckpoint):
            checkpoint.best_k_models = {}
            checkpoint.kth_best_model_path = checkpoint.best_model_path = ""
            checkpoint.best_model_score = checkpoint.current_score = None
            checkpoint.kth_value = torch.tensor(
                torch.inf if checkpoint.mode == "min" else -torch.inf
            )
