"""Work that is shared out over the processes of a Trainer, errors included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

T = TypeVar("T")
Attempt = tuple[Any, Exception | None]
"""What a call returned, and what it raised."""


class AcrossRanks:
    """Calls that every process makes, and that end alike on all: with a result or an error.

    Args:
        trainer: A Trainer whose processes are up.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._strategy = trainer.strategy
        self.rank, self.size = trainer.global_rank, trainer.world_size

    def from_zero(self, work: Callable[[], T]) -> T:
        """What ``work`` returns on rank 0; the others do not call it."""
        return self.from_rank(0, work)

    def from_zero_only(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, on rank 0 alone; for what is not sent. The others get ``None``."""
        made: list[T] = []
        self.from_zero(lambda: made.append(work()))
        return made[0] if made else None  # type: ignore[return-value]

    def from_rank(self, rank: int, work: Callable[[], T]) -> T:
        """What ``work`` returns on ``rank``; the others do not call it."""
        mine = _attempted(work) if self.rank == rank else None
        return _unwrapped(self._attempt_of(rank, mine))

    def from_all(self, work: Callable[[], T]) -> list[T]:
        """What ``work`` returns on each rank; all work at the same time."""
        mine = _attempted(work)
        # Every rank takes part in every exchange, before any of them may raise.
        attempts = [self._attempt_of(rank, mine) for rank in range(self.size)]
        return [_unwrapped(attempt) for attempt in attempts]

    def _attempt_of(self, rank: int, mine: Attempt | None) -> Attempt:
        """The attempt of ``rank``, on every rank."""
        told: Any = None
        if mine is not None and rank == self.rank:
            if self.size == 1:
                return mine
            value, error = mine
            # Only text crosses: an exception may hold what cannot be pickled.
            told = value, None if error is None else (_kind(error), str(error))
        value, text = self._strategy.broadcast(told, src=rank)
        if mine is not None and rank == self.rank:
            return mine
        return value, None if text is None else _ERRORS[text[0]](f"rank {rank}: {text[1]}")


def _attempted(work: Callable[[], Any]) -> Attempt:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _unwrapped(attempt: Attempt) -> Any:
    value, error = attempt
    if error is not None:
        raise error
    return value


_ERRORS: dict[str, type[Exception]] = {
    "MisconfigurationException": MisconfigurationException,
    "ValueError": ValueError,
    "RuntimeError": RuntimeError,
}


def _kind(error: Exception) -> str:
    for name, kind in _ERRORS.items():
        if isinstance(error, kind):
            return name
    return "RuntimeError"
