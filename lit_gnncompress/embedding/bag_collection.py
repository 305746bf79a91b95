"""Many tables in tensor-train form, looked up in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_gnncompress.embedding.bag import Bags, TTEmbeddingBag, check_weights
from lit_gnncompress.embedding.joined_cores import CoreSlices, JoinedCores, joinable
from lit_gnncompress.embedding.row_table import check_indices
from lit_gnncompress.kernels import tt_embedding_bag, tt_lookup
from lit_gnncompress.kernels.tt_embedding_bag import check_offsets

OfTable = Tensor | Sequence[Tensor | None]
"""What a table is asked for: ``input``, or ``(input, offsets)`` and perhaps weights."""


class TTEmbeddingBagCollection(nn.Module):
    """Several :class:`TTEmbeddingBag`, of which those that are alike are looked up together.

    Tables that agree in columns and ranks (not in rows), in dtype and in whether they are trained
    become a group: their cores lie in common tensors, and one kernel call, one set of launches on a
    GPU, serves them all, forward and backward. Tables of ``mode="max"``, with vectors of parts or
    with a scale that is learned are asked one by one.

    States are those of the tables, ``tables.NAME.cores.K`` and so on, however they are grouped.
    Parameters of groups are common: ``named_parameters()`` has ``groups.G.core_K``, and an
    optimizer's state is of these. A table of a group has none of its own, and cannot be replaced:
    make another collection.

    Args:
        tables: The tables by name, or one after the other: then their names are their numbers.
            Their cores become slices of those of the collection.

    Attributes:
        tables: The tables by name, each with all that a table has, ``full_weight()`` among it.
        groups: Cores of the groups, with the parameters.

    Raises:
        ValueError: No tables, the same table twice, or something else than a ``TTEmbeddingBag``.

    Example:
        >>> sizes = {"user": 5_000_000, "item": 800_000}
        >>> tables = {name: TTEmbeddingBag(n, 16, mode="sum") for name, n in sizes.items()}
        >>> collection = TTEmbeddingBagCollection(tables)
        >>> collection(torch.tensor([[7, 3], [4_999_999, 1]])).shape
        torch.Size([2, 2, 16])
    """

    def __init__(self, tables: Mapping[str, TTEmbeddingBag] | Sequence[TTEmbeddingBag]) -> None:
        super().__init__()
        if not isinstance(tables, Mapping):
            tables = {str(number): table for number, table in enumerate(tables)}
        if not tables:
            raise ValueError("tables is empty: a collection needs one or more TTEmbeddingBag.")
        _check_tables(tables)
        self.tables = nn.ModuleDict(tables)
        kinds: dict[object, list[str]] = {}
        for name, table in tables.items():
            kinds.setdefault(_kind(table) or name, []).append(name)
        self._names = [
            [names[number] for number in group]
            for names in kinds.values()
            for group in joinable([tables[name].shape.rows for name in names])
            if len(group) > 1
        ]
        self.groups = nn.ModuleList(
            JoinedCores(
                [tables[name] for name in names],
                [k for k, name in enumerate(tables) if name in names],
            )
            for names in self._names
        )

    def forward(
        self, input: Tensor | Sequence[OfTable] | Mapping[str, OfTable]
    ) -> Tensor | list[Tensor]:
        """Reduces bags of rows of all tables.

        Args:
            input: A category for each table, int64 or int32, shape ``(B, T)``; or, for each table
                in their order or by name, what :class:`TTEmbeddingBag` takes: ``input``,
                ``(input, offsets)`` or ``(input, offsets, per_sample_weights)``.

        Returns:
            Of categories shape ``(B, T, D)``; else, and where widths differ, a tensor for each
            table, of shape ``(bags, D)``.

        Raises:
            ValueError: Other than one entry for each table; and see ``TTEmbeddingBag``.
            IndexError: An index that is no row, naming the table.
        """
        if isinstance(input, Tensor):
            return self._rows_of(input)
        if isinstance(input, Mapping):
            if set(input) != set(self.tables):
                raise ValueError(
                    f"input is for {', '.join(input)}; the tables are {', '.join(self.tables)}."
                )
            input = [input[name] for name in self.tables]
        if len(input) != len(self.tables):
            raise ValueError(
                f"input has {len(input)} entries, there are {len(self.tables)} tables: give each "
                f"its own."
            )
        asked = {
            name: (of_table,) if isinstance(of_table, Tensor) else tuple(of_table)
            for name, of_table in zip(self.tables, input, strict=True)
        }
        for name, args in asked.items():
            if not 1 <= len(args) <= 3:
                raise ValueError(
                    f"table {name!r}: {len(args)} tensors; it takes input, offsets and "
                    f"per_sample_weights."
                )
        found: dict[str, Tensor] = {}
        for names, joined in self._joined():
            found |= self._reduce(names, joined, asked)
        return [found[n] if n in found else t(*asked[n]) for n, t in self._items()]

    def full_weight(self, name: str) -> Tensor:
        """All rows of a table, shape ``(N, D)``."""
        return self._table(name).full_weight()

    @property
    def compression_ratio(self) -> float:
        """Numbers in all tables over the number of parameters."""
        dense = sum(table.num_embeddings * table.embedding_dim for _, table in self._items())
        return dense / sum(parameter.numel() for parameter in self.parameters())

    def extra_repr(self) -> str:
        """How many calls serve how many tables."""
        alone = len(self.tables) - sum(map(len, self._names))
        return (
            f"{len(self.tables)} tables in {len(self.groups) + alone} calls, "
            f"compression_ratio={self.compression_ratio:.4g}"
        )

    def _table(self, name: str) -> TTEmbeddingBag:
        return cast(TTEmbeddingBag, self.tables[name])

    def _items(self) -> list[tuple[str, TTEmbeddingBag]]:
        return [(name, self._table(name)) for name in self.tables]

    def _joined(self) -> list[tuple[list[str], JoinedCores]]:
        groups = cast(Iterable[JoinedCores], self.groups)
        found = list(zip(self._names, groups, strict=True))
        if not torch.compiler.is_compiling():
            for names, joined in found:
                self._check_members(names, joined)
        return found

    def _check_members(self, names: list[str], joined: JoinedCores) -> None:
        for number, name in enumerate(names):
            if name not in self.tables or not joined.has(self._table(name), number):
                raise ValueError(
                    f"tables[{name!r}] was taken out or replaced, and its cores lie with those of "
                    f"{', '.join(other for other in names if other != name)}: make another "
                    f"TTEmbeddingBagCollection of the tables (copies of those that are in this "
                    f"one), or load a state into this."
                )

    # --- a category for each table ----------------------------------------------------------------

    def _rows_of(self, categories: Tensor) -> Tensor | list[Tensor]:
        if categories.dim() != 2 or categories.size(1) != len(self.tables):
            raise ValueError(
                f"input has shape {tuple(categories.shape)}: categories are of shape "
                f"(B, {len(self.tables)}), one for each table."
            )
        columns = {name: column for column, name in enumerate(self.tables)}
        for name, table in self._items():
            _check(name, categories[:, columns[name]], table)
        found: dict[str, Tensor] = {}
        for names, joined in self._joined():
            whole = len(names) == len(columns)
            own = categories if whole else categories.index_select(1, joined.columns)
            tables = [self._table(name) for name in names]
            places = own
            if any(table.row_order is not None for table in tables):
                places = torch.stack(
                    [_places(t, column) for t, column in zip(tables, own.unbind(1), strict=True)], 1
                )
            rows = tt_lookup(joined(places), joined.cores)
            if joined.has_padding:
                rows = rows.masked_fill((own == joined.padding).unsqueeze(2), 0)
            if whole:
                return rows
            found |= dict(zip(names, rows.unbind(1), strict=True))
        for name, table in self._items():
            if name not in found:
                column = columns[name]
                found[name] = table(categories[:, column : column + 1])
        rows_of = [found[name] for name in self.tables]
        widths = {table.embedding_dim for _, table in self._items()}
        return torch.stack(rows_of, 1) if len(widths) == 1 else rows_of

    # --- bags -------------------------------------------------------------------------------------

    def _reduce(
        self, names: list[str], joined: JoinedCores, asked: Mapping[str, tuple[Any, ...]]
    ) -> dict[str, Tensor]:
        dtype = joined.cores[0].dtype
        bags: list[Bags] = []
        for name in names:
            table = self._table(name)
            indices, offsets, weights = (*asked[name], None, None)[:3]
            _check(name, indices, table)
            try:
                check_weights(weights, indices, table.mode, dtype)
                of_table = Bags.of(indices, offsets, weights, table.include_last_offset)
                # Joined offsets would hide where those of a table begin and end.
                check_offsets(of_table.first, of_table.indices)
            except ValueError as problem:
                raise ValueError(f"table {name!r}: {problem}") from None
            bags.append(of_table.without(table.padding_idx, dtype))
        tables = [self._table(name) for name in names]
        places = [
            joined.of_table(number, _places(table, of_table.indices))
            for number, (table, of_table) in enumerate(zip(tables, bags, strict=True))
        ]
        weights = None
        if any(of_table.weights is not None for of_table in bags):
            weights = torch.cat(
                [
                    b.indices.new_ones(b.indices.shape, dtype=dtype)
                    if b.weights is None
                    else b.weights
                    for b in bags
                ]
            )
        sums = tt_embedding_bag(torch.cat(places), _joined_offsets(bags), joined.cores, weights)
        counts = [of_table.first.numel() - 1 for of_table in bags]
        found = dict(zip(names, sums.split(counts), strict=True))
        for name, table, of_table in zip(names, tables, bags, strict=True):
            if table.mode == "mean":
                found[name] = found[name] / of_table.sizes(table.padding_idx, dtype)
        return found


def _check_tables(tables: Mapping[str, TTEmbeddingBag]) -> None:
    seen: dict[int, str] = {}
    for name, table in tables.items():
        if not isinstance(table, TTEmbeddingBag):
            raise ValueError(
                f"tables[{name!r}] is {type(table).__name__}: a collection is made of "
                f"TTEmbeddingBag."
            )
        if isinstance(table.cores, CoreSlices):
            raise ValueError(
                f"tables[{name!r}] is in another collection already, where its cores lie: copy it "
                f"before, or add all tables to one collection."
            )
        if table.cores[0].is_meta:
            raise ValueError(
                f"tables[{name!r}] is on the meta device: put it on another one, then into a "
                f"collection."
            )
        if (other := seen.setdefault(id(table), name)) != name:
            raise ValueError(
                f"tables[{name!r}] is tables[{other!r}]: ask one table for the bags of both."
            )


def _kind(table: TTEmbeddingBag) -> object | None:
    """What tables of a group agree in; ``None`` if a table can be in none."""
    if table.mode == "max" or table.parts is not None or table.core_scale is not None:
        return None
    core = table.cores[0]
    return table.shape.columns, table.shape.ranks, core.dtype, core.device, core.requires_grad


def _places(table: TTEmbeddingBag, indices: Tensor) -> Tensor:
    return indices if table.row_order is None else table.row_order(indices)


def _check(name: str, indices: Tensor, table: TTEmbeddingBag) -> None:
    try:
        check_indices(indices, table.num_embeddings)
    except (IndexError, TypeError, ValueError) as problem:
        raise type(problem)(f"table {name!r}: {problem}") from None


def _joined_offsets(bags: Sequence[Bags]) -> Tensor:
    """First index of the bags of all tables, one table after the other, and their number."""
    start, pieces = 0, []
    for of_table in bags:
        pieces.append(of_table.first[:-1] + start)
        start += of_table.indices.numel()
    return torch.cat([*pieces, bags[0].first.new_full((1,), start)])
