"""What several callbacks ask of a Trainer."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer, callbacks
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException

_SHARDING = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)

# Earlier versions of Lightning have only the first.
_AVERAGING = tuple(
    getattr(callbacks, name)
    for name in ("StochasticWeightAveraging", "WeightAveraging")
    if hasattr(callbacks, name)
)


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


def spawns_processes(trainer: Trainer) -> bool:
    """Whether the strategy starts processes for a single call (ddp_spawn, ddp_fork)."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def check_no_averaging(trainer: Trainer, callback: Callback, remedy: str) -> None:
    """Refuses callbacks that average weights beside one that keeps the weights of an epoch.

    What they validate or leave in the module are no weights of any epoch.

    Args:
        trainer: The Trainer.
        callback: The callback that chooses an epoch.
        remedy: What to have in a second fit, for the message.

    Raises:
        MisconfigurationException: Naming both callbacks.
    """
    for other in callbacks_of(trainer):
        if isinstance(other, _AVERAGING):
            own, averaging = type(callback).__name__, type(other).__name__
            raise MisconfigurationException(
                f"{own} keeps the weights of the best epoch, {averaging} averages those of "
                f"several: a Trainer can have one of them. Fit in full precision with {averaging} "
                f"first; then fit the averaged module in a Trainer with Quantize and {remedy}."
            )
