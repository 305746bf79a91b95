"""How often each category occurs, counted in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SLOTS = 2**25
"""Slots of 8 bytes that the tables of all fields have together, before some are written out."""

_FEWEST_SLOTS = 2**10
_PARTS = 256
_PART_BITS = 24


class _Table:
    """Counts of a field that are in memory."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.keys, self.counts = np.zeros((2, _FEWEST_SLOTS), np.uint32)
        self.used = self.rows = 0

    def grow(self) -> None:
        from lit_gnncompress.data.category_loops import move

        keys, counts = np.zeros((2, 2 * len(self.keys)), np.uint32)
        move(self.keys, self.counts, keys, counts)
        self.keys, self.counts = keys, counts

    def by_key(self) -> tuple[np.ndarray, np.ndarray]:
        there = np.flatnonzero(self.counts)
        there = there[self.keys[there].argsort()]
        return self.keys[there], self.counts[there]


class CategoryCounts:
    """Exact counts of the categories of each field.

    When the tables have too many slots, the largest is written to a file, by category, and starts
    anew; the files are merged in the end, a range of categories at a time.

    Args:
        counted: Whether to count, for each field.
        folder: Where to write.
        slots: Slots of all tables.
    """

    def __init__(self, counted: list[bool], folder: Path, slots: int = SLOTS) -> None:
        self._tables = [_Table() if each else None for each in counted]
        self._runs: list[list[_Run]] = [[] for _ in counted]
        self._folder, self._slots = folder, slots

    def add(self, categories: np.ndarray) -> None:
        """Counts the categories of some rows.

        Args:
            categories: uint32, shape ``(R, F)``.
        """
        from lit_gnncompress.data.category_loops import count

        for number, table in enumerate(self._tables):
            if table is None:
                continue
            column = categories[:, number]
            if table.rows + len(column) >= 2**32:  # a count might not fit any more
                self._write_out(number)
            table.rows += len(column)
            place = 0
            while True:
                place, table.used = count(column, place, table.keys, table.counts, table.used)
                if place == len(column):
                    break
                self._make_room(number, table)

    def most_frequent(self, number: int, min_frequency: int, most: int) -> np.ndarray:
        """The most frequent categories of a field, by falling frequency; equal ones by value.

        The field is forgotten.

        Args:
            number: The field.
            min_frequency: How often a category must occur.
            most: How many at most.

        Returns:
            uint32, shape ``(K,)``.
        """
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for keys, counts in self._merged(number):
            enough = counts >= min_frequency
            found.append((keys[enough], counts[enough]))
            if sum(len(keys) for keys, _ in found) > 2 * most:
                found = [_first(found, most)]
        return _first(found, most)[0]

    def _make_room(self, number: int, table: _Table) -> None:
        tables = {n: len(t.keys) for n, t in enumerate(self._tables) if t is not None}
        if sum(tables.values()) + tables[number] > self._slots:
            largest = max(tables, key=tables.__getitem__)
            if tables[largest] > _FEWEST_SLOTS:
                self._write_out(largest)
                if largest == number:
                    return
        table.grow()

    def _write_out(self, number: int) -> None:
        table = self._tables[number]
        assert table is not None
        path = self._folder / f"counts.{number}.{len(self._runs[number])}"
        self._runs[number].append(_Run.written(path, *table.by_key()))
        table.clear()

    def _merged(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Categories and their counts, a range at a time."""
        table = self._tables[number]
        assert table is not None
        runs = self._runs[number]
        keys, counts = table.by_key()
        self._tables[number] = None
        starts = _starts(keys)
        for part in range(_PARTS):
            rest = slice(starts[part], starts[part + 1])
            read = [run.part(part) for run in runs]
            every = np.concatenate([*(each[0] for each in read), keys[rest]])
            times = np.concatenate([*(each[1] for each in read), counts[rest]])
            found, place = np.unique(every, return_inverse=True)
            total = np.bincount(place, times, len(found)).astype(
                np.int64
            )  # float64: exact to 2**53
            yield found, total
        for run in runs:
            run.path.unlink()


@dataclass(frozen=True)
class _Run:
    """Counts that were written out, by category."""

    path: Path
    starts: np.ndarray

    @classmethod
    def written(cls, path: Path, keys: np.ndarray, counts: np.ndarray) -> _Run:
        with open(path, "wb") as file:
            keys.tofile(file)
            counts.tofile(file)
        return cls(path, _starts(keys))

    def part(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        first, last = self.starts[number : number + 2].tolist()
        keys, counts = (
            np.fromfile(self.path, np.uint32, last - first, offset=4 * (begin + first))
            for begin in (0, int(self.starts[-1]))
        )
        return keys, counts


def _starts(keys: np.ndarray) -> np.ndarray:
    """Where each range of sorted categories begins, and where the last one ends."""
    bounds = (np.arange(1, _PARTS) << _PART_BITS).astype(np.uint32)
    return np.concatenate([[0], np.searchsorted(keys, bounds), [len(keys)]])


def _first(found: list[tuple[np.ndarray, np.ndarray]], most: int) -> tuple[np.ndarray, np.ndarray]:
    keys, counts = (np.concatenate(each) for each in zip(*found, strict=True))
    best = np.lexsort((keys, -counts))[:most]
    return keys[best], counts[best]
