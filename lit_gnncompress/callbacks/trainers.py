"""What several callbacks ask of a Trainer."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

_SHARDING = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The callbacks of a Trainer, which declares no such attribute."""
    return trainer.callbacks  # type: ignore[attr-defined]


def check_strategy(trainer: Trainer, callback: Callback) -> None:
    """Refuses strategies with which no process has a whole module.

    Raises:
        MisconfigurationException: Naming the callback and the strategy.
    """
    if isinstance(trainer.strategy, _SHARDING):
        raise MisconfigurationException(
            f"{type(callback).__name__} does not work with {type(trainer.strategy).__name__}, "
            f"which shards modules. Use strategy='ddp' or a single device."
        )
