"""Many tables asked for a category each: tensor trains that are alike in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_gnncompress.embedding.bag import TTEmbeddingBag
from lit_gnncompress.embedding.joined_cores import JoinedNumbers, joinable
from lit_gnncompress.embedding.tensor_train import TTEmbedding
from lit_gnncompress.embedding.train_table import TrainTable
from lit_gnncompress.kernels import tt_lookup

_MOST_NUMBERS = 300_000
"""Of the cores of a table: copies of more took a CPU longer than a call of its own."""


class JoinedLookup:
    """Looks a category up in each of some tables, in those that are alike together.

    :class:`TTEmbedding` and :class:`TTEmbeddingBag` that agree in columns and ranks (not in rows),
    in dtype, device and whether they are trained become a group: their cores are copied behind one
    another, and one kernel call serves them all, forward and backward. All other tables are asked
    one by one, also those with hooks, and those with large cores on a CPU. Unlike in a
    :class:`TTEmbeddingBagCollection` tables keep their parameters, so that names, states and
    optimizers do not see it, and they may be replaced from one call to the next.
    """

    def __init__(self) -> None:
        self._known: tuple[tuple[Any, ...], list[_Group]] | None = None

    def __call__(self, tables: Sequence[nn.Module], categories: Tensor) -> list[Tensor]:
        """Finds the row of each category.

        Args:
            tables: Modules that take int64 of shape ``(B,)`` and return ``(B, D)``, or are like
                ``nn.EmbeddingBag``: then they are given bags of one.
            categories: A category for each table, int64, shape ``(B, T)``.

        Returns:
            The rows, ``(B, D)`` for each table, as if each had been asked by itself.

        Raises:
            IndexError: A category that has no row, naming the table by its number.
        """
        asked = (categories.device, *map(_kind, tables))
        known = self._known
        if known is None or known[0] != asked:  # a table was replaced, moved, frozen …
            with torch.inference_mode(False):  # training may come next
                known = asked, _groups(tables, categories.device)
            if not torch.compiler.is_compiling():  # whose tensors are not those of later calls
                self._known = known
        found: dict[int, Tensor] = {}
        for group in known[1]:
            members = [cast(TrainTable, tables[number]) for number in group.numbers]
            rows = group.rows_of(members, categories)
            found |= dict(zip(group.numbers, rows, strict=True))
        return [
            found[number] if number in found else _rows_of(table, categories[:, number])
            for number, table in enumerate(tables)
        ]


@dataclass(frozen=True)
class _Group:
    """Tables that are alike.

    Attributes:
        numbers: Which of all.
        columns: The same, on the device of the categories.
        sizes: Rows of each.
        places: What turns their places into those of the joined train.
    """

    numbers: list[int]
    columns: Tensor
    sizes: Tensor
    places: JoinedNumbers

    @classmethod
    def of(cls, numbers: list[int], tables: Sequence[TrainTable], device: torch.device) -> _Group:
        def tensor(values: list[int]) -> Tensor:
            return torch.tensor(values, device=device)

        return cls(
            numbers,
            tensor(numbers),
            tensor([table.num_embeddings for table in tables]),
            JoinedNumbers.of([table.shape.rows for table in tables], device),
        )

    def rows_of(self, tables: Sequence[TrainTable], categories: Tensor) -> list[Tensor]:
        own = categories.index_select(1, self.columns)
        self._check(own)
        places = own
        if any(table.row_order is not None for table in tables):
            each = zip(tables, own.unbind(1), strict=True)
            places = torch.stack(
                [c if t.row_order is None else t.row_order(c).long() for t, c in each], 1
            )
        cores = zip(*(table.scaled_cores() for table in tables), strict=True)
        rows = list(tt_lookup(self.places(places), [*map(torch.cat, cores)]).unbind(1))
        for k, table in enumerate(tables):
            if table.parts is not None:
                rows[k] = rows[k] + table.parts(places[:, k])
            if table.padding_idx is not None:
                rows[k] = rows[k].masked_fill((own[:, k] == table.padding_idx).unsqueeze(1), 0)
        return rows

    def _check(self, own: Tensor) -> None:
        inside = (own >= 0) & (own < self.sizes)
        if own.is_cuda or torch.compiler.is_compiling():  # which are not waited for
            torch._assert_async(inside.all(), "categories outside of their tables")
        elif not bool(inside.all()):
            row, k = (~inside).nonzero()[0].tolist()
            raise IndexError(
                f"table {self.numbers[k]}: category {int(own[row, k])} of row {row} is no row: "
                f"num_embeddings={int(self.sizes[k])}, counted from 0."
            )


def _groups(tables: Sequence[nn.Module], device: torch.device) -> list[_Group]:
    alike: dict[object, list[int]] = {}
    for number, table in enumerate(tables):
        if isinstance(table, TrainTable) and (kind := _kind(table)) is not None:
            alike.setdefault(kind[0], []).append(number)
    trains = cast(Sequence[TrainTable], tables)
    groups = []
    for numbers in alike.values():
        for group in joinable([trains[number].shape.rows for number in numbers]):
            if len(group) > 1:
                members = [numbers[k] for k in group]
                groups.append(_Group.of(members, [trains[k] for k in members], device))
    return groups


def _kind(table: nn.Module) -> tuple[object, object] | None:
    """What tables of a group agree in, and what else a group is made of; ``None`` if in none."""
    if type(table) not in (TTEmbedding, TTEmbeddingBag) or _has_hooks(table):
        return None
    train = cast(TrainTable, table)
    core = train.cores[0]
    if core.device.type == "cpu" and train.shape.num_parameters > _MOST_NUMBERS:
        return None
    alike = (train.shape.columns, train.shape.ranks, core.dtype, core.device, core.requires_grad)
    return alike, (train.shape.rows, train.num_embeddings)


def _has_hooks(table: nn.Module) -> bool:
    """Whether somebody wants to be called with the table."""
    return bool(
        table._forward_hooks
        or table._forward_pre_hooks
        or table._backward_hooks
        or table._backward_pre_hooks
    )


def _rows_of(table: nn.Module, categories: Tensor) -> Tensor:
    is_bag = hasattr(table, "include_last_offset")
    rows: Tensor = table(categories.unsqueeze(1) if is_bag else categories)
    return rows
