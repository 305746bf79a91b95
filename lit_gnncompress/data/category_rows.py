"""Which row of its field's table each category has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_gnncompress.data.category_counts import SLOTS, CategoryCounts


@dataclass(frozen=True)
class CategoryRule:
    """Which categories have a row of their own, and how many rows the others share.

    A table begins with ``hash_buckets`` rows that share all categories without a row of their own,
    each in the row of its remainder; those with one follow, the most frequent first.

    Attributes:
        min_frequency: How often a category must occur to have a row of its own.
        max_categories: How many have one at most, for each field.
        hash_buckets: Rows that the others share, for each field.
    """

    min_frequency: int
    max_categories: tuple[int, ...]
    hash_buckets: tuple[int, ...]

    @classmethod
    def of(
        cls,
        num_fields: int,
        min_frequency: int,
        max_categories: int | Sequence[int],
        hash_buckets: int | Sequence[int],
    ) -> CategoryRule:
        """The rule, with numbers for each field.

        Raises:
            ValueError: If a number is too small, or there is not one for each field.
        """
        if min_frequency < 1:
            raise ValueError(f"min_frequency={min_frequency} must be at least 1")
        numbers = []
        for name, given, least in (
            ("max_categories", max_categories, 0),
            ("hash_buckets", hash_buckets, 1),
        ):
            each = [given] * num_fields if isinstance(given, int) else list(given)
            if len(each) != num_fields:
                raise ValueError(
                    f"{name} has {len(each)} numbers, but there are {num_fields} fields: give one "
                    f"number for all or one for each"
                )
            if min(each) < least:
                raise ValueError(f"{name}={given} must be at least {least} in each field")
            numbers.append(tuple(each))
        rule = cls(min_frequency, *numbers)
        most = max(a + b for a, b in zip(rule.max_categories, rule.hash_buckets, strict=True))
        if most > 2**31 - 1:
            raise ValueError(
                f"max_categories and hash_buckets allow a table of {most:,} rows: rows are int32, "
                f"so lower them to {2**31 - 1:,} together"
            )
        return rule

    @property
    def counted(self) -> list[bool]:
        """Whether frequencies matter, for each field."""
        return [most > 0 for most in self.max_categories]


class CategoryRows:
    """The rows of counted categories; what is known of a field lies in a file until it is used.

    Args:
        rule: Who has a row.
        counts: How often categories occur; they are used up.
        folder: Where to write.

    Attributes:
        num_embeddings: Rows of each table.
    """

    def __init__(self, rule: CategoryRule, counts: CategoryCounts, folder: Path) -> None:
        self._rule, self._folder = rule, folder
        self._own = []
        for number, most in enumerate(rule.max_categories):
            own = np.empty(0, np.uint32)
            if rule.counted[number]:
                own = counts.most_frequent(number, rule.min_frequency, most)
            np.save(self._path(number), own)
            self._own.append(len(own))
        both = zip(rule.hash_buckets, self._own, strict=True)
        self.num_embeddings = tuple(shared + own for shared, own in both)

    def replace(
        self,
        blocks: Callable[[], Iterator[np.ndarray]],
        write: Callable[[np.ndarray], Any],
        slots: int = SLOTS,
    ) -> None:
        """Replaces categories by rows, in as many passes as memory demands.

        Args:
            blocks: Begins a pass over the rows; gives blocks of categories, uint32 of shape
                ``(R, F)``.
            write: Called with each block after it was changed.
            slots: Slots of the tables in memory in a pass, of 8 bytes.
        """
        from lit_gnncompress.data.category_loops import look_up

        for fields in self._passes(slots):
            tables = {number: self._table(number) for number in fields}
            for block in blocks():
                for number, table in tables.items():
                    look_up(block[:, number], *table, self._rule.hash_buckets[number])
                write(block)

    def num_passes(self, slots: int = SLOTS) -> int:
        """How many passes ``replace`` takes."""
        return len(self._passes(slots))

    def _passes(self, slots: int) -> list[list[int]]:
        passes: list[list[int]] = []
        room = 0
        for number in range(len(self._own)):
            if not passes or self._slots(number) > room:
                passes.append([])
                room = slots
            passes[-1].append(number)
            room -= self._slots(number)
        return passes

    def _slots(self, number: int) -> int:
        return 1 << max(2 * self._own[number], 2).bit_length()

    def _table(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        from lit_gnncompress.data.category_loops import number as fill

        keys = np.zeros(self._slots(number), np.uint32)
        numbers = np.zeros(self._slots(number), np.int32)
        fill(np.load(self._path(number)), keys, numbers)
        return keys, numbers

    def _path(self, number: int) -> Path:
        return self._folder / f"categories.{number}.npy"
