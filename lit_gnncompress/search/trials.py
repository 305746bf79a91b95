"""Trials: plans and what was measured of them, kept in a file as soon as it is known."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.search.space import Point

Stage = Literal["baseline", "measured", "finetuned"]
"""Full precision; a plan without fine-tuning; a plan with."""

VERSION = 1


class Measurement(NamedTuple):
    """What one measurement found.

    Attributes:
        score: The monitored metric; ``None`` where it was not finite.
        seconds: How long it took.
    """

    score: float | None
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """A plan, and what was measured of it.

    Attributes:
        number: Place among the trials, from 0.
        plan: The plan.
        point: The plan as a point of its space.
        origin: How it came to be tried: ``"uniform"``, ``"recipe"``, ``"scan"``, ``"random"`` or
            ``"model"``.
        measured: Score without fine-tuning.
        finetuned: Score with fine-tuning, which is never worse; ``None`` where it was not tried.
        drop: What the better of the two loses against full precision; at least 1 where training
            or validation diverged.
        bytes: Bytes of the plan, by the count of its space.
        saving: fp32 over these.
        diverged: Whether no score was finite.
        seconds: Time of its measurements; no part of what makes trials equal.
    """

    number: int
    plan: BitPlan
    point: Point
    origin: str
    measured: float
    finetuned: float | None
    drop: float
    bytes: int
    saving: float
    diverged: bool = False
    seconds: float = field(default=0.0, compare=False)

    @property
    def accuracy(self) -> float:
        """The score that counts: with fine-tuning, where it was tried."""
        return self.measured if self.finetuned is None else self.finetuned

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        return vars(self) | {
            "plan": self.plan.to_dict(),
            "point": list(self.point),
            "accuracy": self.accuracy,
        }


class TrialFile:
    """Measurements in a file of JSON lines, of which each is on disk when it is known.

    The first line tells the search; a later search that is told another one is refused. A last line
    that was not written to its end is dropped.

    Args:
        path: The file; its folder is made if need be. ``None`` keeps nothing.
        search: What tells this search from another, as plain values.

    Attributes:
        known: Measurements by stage and number of the trial, with their bits.

    Raises:
        ValueError: A file of another search, with a broken line before its end, or with a line
            that is no measurement.
    """

    def __init__(self, path: str | Path | None, search: dict[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.known: dict[tuple[Stage, int], tuple[Point, Measurement]] = {}
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        search = json.loads(json.dumps(search))  # as it comes back from the file
        lines = _whole_lines(self.path)
        if not lines:
            self._write({"version": VERSION, **search}, "w")
            return
        _refuse_other(self.path, lines[0], {"version": VERSION, **search})
        for number, line in enumerate(lines[1:], start=2):
            try:
                stage, trial, point, found = _measurement(**line)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{self.path}: line {number} is no measurement ({error}). Delete the file to "
                    f"search anew."
                ) from error
            self.known[stage, trial] = (point, found)

    def append(self, stage: Stage, number: int, point: Point, found: Measurement) -> None:
        """Keeps a measurement.

        Args:
            stage: What was measured.
            number: Number of the trial; -1 for full precision.
            point: Bits of the dimensions; empty for full precision.
            found: The measurement.
        """
        self.known[stage, number] = (point, found)
        line = {"stage": stage, "trial": number, "bits": list(point), **found._asdict()}
        self._write(line, "a")

    def _write(self, line: dict[str, Any], mode: str) -> None:
        if self.path is None:
            return
        with self.path.open(mode, encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _measurement(
    stage: Stage, trial: int, bits: list[int], score: float | None, seconds: float
) -> tuple[Stage, int, Point, Measurement]:
    """What a line of the file says."""
    if stage not in get_args(Stage):
        raise ValueError(f"stage={stage!r}")
    found = Measurement(None if score is None else float(score), float(seconds))
    return stage, int(trial), tuple(map(int, bits)), found


def refuse_other_search(path: Path, known: dict[str, dict[str, Any]]) -> None:
    """Refuses a file of another search, as far as that can be told before it begins.

    Args:
        path: The file; it need not exist.
        known: Parts of what the search that wants to go on with the file will be told by, and of
            each part what is known of it already.

    Raises:
        ValueError: Naming what differs.
    """
    lines = _whole_lines(path)
    if lines:
        known = json.loads(json.dumps(known))  # as it comes back from the file
        found = {}
        for part, values in known.items():
            told = lines[0].get(part)
            told = told if isinstance(told, dict) else {}
            found[part] = {key: told[key] for key in values if key in told}
        _refuse_other(path, found, known)


def _refuse_other(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        told = "; ".join(f"{key}: {_told(found.get(key), wanted[key])}" for key in differing)
        raise ValueError(
            f"{path} has the trials of another search, which differs in {told}. Search in another "
            f"folder (dirpath), or delete the file to start anew."
        )


def _told(found: Any, wanted: Any) -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [key for key in wanted | found if found.get(key) != wanted.get(key)]
        return ", ".join(f"{key} {_told(found.get(key), wanted.get(key))}" for key in keys)
    texts = [json.dumps(value) for value in (found, wanted)]
    if max(map(len, texts)) > 60:
        return "(long)"
    return f"{texts[0]} there, {texts[1]} here"


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The parsed lines of a file; what was not written to its end is cut off."""
    if not path.exists():
        return []
    text = path.read_bytes()
    end = text.rfind(b"\n") + 1
    lines: list[dict[str, Any]] = []
    start = 0
    while start < end:
        stop = text.index(b"\n", start) + 1
        try:
            line = json.loads(text[start:stop])
            if not isinstance(line, dict):
                raise ValueError
        except ValueError:
            if stop < end:
                raise ValueError(
                    f"{path}: line {len(lines) + 1} is broken, and there are more after it. "
                    f"Delete the file to search anew."
                ) from None
            end = start
            break
        lines.append(line)
        start = stop
    if end < len(text):
        with path.open("r+b") as file:
            file.truncate(end)
    return lines
