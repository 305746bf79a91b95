"""Weights that a search has fine-tuned: those of the best plan, in memory and in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lit_gnncompress.callbacks.across_ranks import AcrossRanks
from lit_gnncompress.files import replacing
from lit_gnncompress.search.trials import Trial

if TYPE_CHECKING:
    from lit_gnncompress.callbacks.inner_fits import Weights


class BestWeights:
    """Keeps what this process has fine-tuned until a better trial is known.

    Args:
        fit: Tells the full-precision weights that fine-tuning starts from, see :func:`digest`.
        folder: Where ``best.pt`` is written, for a process that goes on later.
    """

    def __init__(self, fit: str, folder: Path) -> None:
        self._fit = fit
        self._path = folder / "best.pt"
        self._kept: dict[int, Weights] = {}

    def keep(self, number: int, weights: Weights) -> None:
        """Takes the weights of a trial."""
        self._kept[number] = weights

    def drop_all_but(self, best: Trial | None) -> None:
        """Keeps the weights of the best trial alone, and writes them, if they are here."""
        self._kept = {n: w for n, w in self._kept.items() if best is not None and n == best.number}
        if best is None or best.number not in self._kept:
            return
        content = {
            "plan": best.plan.to_dict(),
            "trial": best.number,
            "fit": self._fit,
            "state_dict": self._kept[best.number],
        }
        with replacing(self._path) as unfinished:
            torch.save(content, unfinished)

    def of(self, best: Trial, ranks: AcrossRanks, again: Callable[[], Weights]) -> Weights:
        """The weights of the best trial, on all processes.

        Args:
            best: The trial.
            ranks: The processes, one of which may have them.
            again: Makes them again, where an earlier process has fine-tuned them and left no file.
        """
        number = best.number
        having = ranks.from_all(lambda: number in self._kept)
        if any(having):
            return ranks.from_rank(having.index(True), lambda: self._kept[number])
        return ranks.from_zero(lambda: self._read(number) or again())

    def _read(self, number: int) -> Weights | None:
        if not self._path.exists():
            return None
        saved = torch.load(self._path, weights_only=True)
        is_it = saved["trial"] == number and saved["fit"] == self._fit
        return saved["state_dict"] if is_it else None


def weights_in(path: str) -> Weights:
    """The weights in a checkpoint of Lightning's.

    Raises:
        ValueError: A file that has none.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"checkpoints: {path} is no checkpoint, it has no state_dict.")
    return checkpoint["state_dict"]


def digest(weights: Sequence[Weights]) -> str:
    """Tells weights from others."""
    found = hashlib.sha256()
    for one in weights:
        for name, value in one.items():
            found.update(name.encode())
            plain = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            found.update(plain.numpy().tobytes())
    return found.hexdigest()[:16]
