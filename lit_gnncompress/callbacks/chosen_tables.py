"""Which tables are to be replaced: those that are named, or the largest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lit_gnncompress.callbacks.tables import (
    FoundTable,
    Train,
    find_tables,
    largest_tables,
    named_tables,
)


@dataclass(frozen=True)
class ChosenTables:
    """The tables that ``modules`` or ``tables``, arguments of ``Tensorize``, choose.

    As a string it is that argument.

    Attributes:
        modules: Their names, tails or globs; ``None`` for the largest.
        largest: How many of the largest; ``None`` for those that are named.
    """

    modules: list[str] | None
    largest: int | None

    @classmethod
    def of(cls, modules: Sequence[str] | None, tables: str | None) -> ChosenTables:
        """Those of two arguments, of which one is given.

        Raises:
            ValueError: Neither is given, or both, or one of another form.
        """
        names = None if modules is None else _checked_names(modules)
        count = None if tables is None else _checked_count(tables)
        if (modules is None) == (tables is None):
            raise ValueError(
                f"modules={modules!r} and tables={tables!r}: give one of them, such as "
                f"modules=['embedding'] or tables='largest:5'."
            )
        return cls(names, count)

    def __str__(self) -> str:
        if self.modules is None:
            return f"tables='largest:{self.largest}'"
        return f"modules={self.modules}"

    def find(self, module: nn.Module) -> tuple[list[FoundTable], dict[str, Train]]:
        """The tables in a module, and by name those that are tensor trains already.

        Raises:
            ValueError: A name without a table, or a table that cannot be replaced.
        """
        if self.largest is None:
            return find_tables(module, named_tables(module, self.modules or []), "modules")
        return find_tables(module, largest_tables(module, self.largest), str(self))


def _checked_names(modules: Sequence[str]) -> list[str]:
    if isinstance(modules, str) or not modules:
        raise ValueError(f"modules={modules!r}: give a list of names, such as ['embedding'].")
    return list(modules)


def _checked_count(tables: str) -> int:
    match = re.fullmatch(r"largest:([1-9][0-9]*)", str(tables))
    if match is None:
        raise ValueError(
            f"tables={tables!r}: give 'largest:5' for the five largest, or name tables by modules."
        )
    return int(match[1])
