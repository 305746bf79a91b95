"""Fits that are done, a line each in a file, so that an interrupted benchmark goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class FinishedFits(Generic[T]):
    """Does each fit once.

    Args:
        kind: Dataclass of what comes of a fit.
        path: The file; ``None`` keeps fits in memory.
    """

    def __init__(self, kind: type[T], path: Path | None) -> None:
        self._path = path
        self._known: dict[str, T] = {}
        if path is None or not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off as it was written
            self._known[json.dumps(entry["key"], sort_keys=True)] = kind(**entry["fit"])

    def once(self, key: dict[str, Any], fit: Callable[[], T]) -> T:
        """The fit of ``key``, which tells all that it depends on."""
        name = json.dumps(key, sort_keys=True)
        if name not in self._known:
            self._known[name] = fit()
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                line = json.dumps({"key": key, "fit": asdict(self._known[name])})  # type: ignore
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
        return self._known[name]
