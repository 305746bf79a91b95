"""Tensor trains of a checkpoint that is tested: made as it is read, as it has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_gnncompress.callbacks.full_tables import before_reading
from lit_gnncompress.callbacks.table_cores import Start
from lit_gnncompress.callbacks.tables import DenseModule
from lit_gnncompress.callbacks.tensorized import MadeTables, TensorizedTable
from lit_gnncompress.embedding import restore_tables
from lit_gnncompress.embedding.train_table import TrainTable


class AwaitedTables:
    """Waits for a state, which Trainers read after their callbacks are set up.

    Args:
        module: What reads the state.
        names: Names of its tables that are to be tensor trains.
        replace: Makes them by arguments, where the state has them as full tables.
        made: Where to note what became of them.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Sequence[str],
        replace: Callable[[], list[TensorizedTable]],
        made: MadeTables,
    ) -> None:
        self._module, self._names, self._replace, self._made = module, list(names), replace, made
        self._hook = before_reading(module, self._follow)

    def stop(self) -> list[str]:
        """Leaves nothing in the module.

        Returns:
            Names of the tables for which no state has come.
        """
        self._hook.remove()
        tables = {name: self._module.get_submodule(name) for name in self._names}
        return [name for name, table in tables.items() if isinstance(table, DenseModule)]

    def _follow(self, state: dict[str, Any]) -> None:
        """Puts cores where a state has them, and where it has the full table instead."""
        restore_tables(self._module, state)
        tables = {name: self._module.get_submodule(name) for name in self._names}
        full = [name for name, table in tables.items() if isinstance(table, DenseModule)]
        done = {}
        if full and all(f"{name}.weight" in state for name in full):
            done = {table.name: table for table in self._replace()}
        for name, cores in tables.items():
            if isinstance(cores, TrainTable):
                order = "none" if cores.row_order is None else "saved"
                done[name] = TensorizedTable.of(name, cores, order, None)
        self._made.keep(self._module, [done[name] for name in self._names if name in done])


def check_start(name: str, start: Start, chosen: str) -> None:
    """Refuses cores that would start at random where nothing trains them.

    Args:
        name: Name of a table for which no state has come.
        start: Where its cores are to start.
        chosen: The argument of ``Tensorize`` that says which tables.

    Raises:
        MisconfigurationException: Anywhere else than at the table.
    """
    if start != "table":
        raise MisconfigurationException(
            f"Tensorize({chosen}): {name!r} is a full table, and cores in its place would be "
            f"random, for start={start!r} and nothing trains them. Fit first, give ckpt_path, take "
            f"start='table' for the nearest cores, or leave the callback out to have the table as "
            f"it is."
        )
