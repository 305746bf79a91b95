"""Embedding tables of a module: found by name, and replaced wherever they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch_geometric.data import Data

from lit_gnncompress.embedding import TTEmbedding
from lit_gnncompress.plan import near_matches


@dataclass(frozen=True)
class TensorizedTable:
    """What became of a table.

    Attributes:
        name: Its first name in the module.
        num_embeddings: Rows of the table.
        embedding_dim: Columns of the table.
        rows: Factors of the rows.
        columns: Factors of the columns.
        ranks: Inner ranks.
        order: How its rows were ordered.
        parameters: Trainable numbers that took the place of all of the table's.
        error: Share of the table that its cores do not hold, by Frobenius norm; ``None`` where
            they started afresh.
    """

    name: str
    num_embeddings: int
    embedding_dim: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    ranks: tuple[int, ...]
    order: str
    parameters: int
    error: float | None = None

    @classmethod
    def of(cls, name: str, cores: TTEmbedding, order: str, error: float | None) -> TensorizedTable:
        """What a table of this name became."""
        return cls(
            name,
            cores.num_embeddings,
            cores.embedding_dim,
            cores.shape.rows,
            cores.shape.columns,
            cores.shape.ranks,
            order,
            sum(parameter.numel() for parameter in cores.parameters()),
            error,
        )

    @property
    def reduction(self) -> float:
        """Numbers of the table for each that is left."""
        return self.num_embeddings * self.embedding_dim / self.parameters


@dataclass(frozen=True)
class FoundTable:
    """A table, and every name that it has in the module."""

    names: tuple[str, ...]
    module: nn.Embedding


def find_tables(
    module: nn.Module, patterns: Sequence[str]
) -> tuple[list[FoundTable], dict[str, TTEmbedding]]:
    """The embedding tables that the patterns name.

    Args:
        module: Where to look.
        patterns: Names of modules, their tails, or globs.

    Returns:
        The tables, and by name those that are tensor trains already.

    Raises:
        ValueError: A pattern without a table, a module that is no table, or a table that cannot be
            replaced.
    """
    layers = dict(module.named_modules(remove_duplicate=False))
    tables = {n: m for n, m in layers.items() if isinstance(m, (nn.Embedding, TTEmbedding))}
    named: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in tables if _matches(name, pattern)]
        if not matches:
            raise ValueError(_nothing_found(pattern, layers, tables))
        named.update(dict.fromkeys(matches))
    owners = _owners(module)
    found: dict[int, FoundTable] = {}
    for name in named:
        table = tables[name]
        if isinstance(table, nn.Embedding) and id(table.weight) not in found:
            found[id(table.weight)] = _found(name, table, layers, owners)
    there = {name: table for name in named if isinstance(table := tables[name], TTEmbedding)}
    return list(found.values()), there


def put(module: nn.Module, names: Sequence[str], table: nn.Module) -> None:
    """Puts a table where ``names`` say."""
    for name in names:
        parent, _, leaf = name.rpartition(".")
        module.get_submodule(parent)._modules[leaf] = table


def edges_of_rows(name: str, num_embeddings: int, graph: Any) -> Tensor:
    """Edges between the rows of a table, int64 of shape ``(2, E)``.

    Args:
        name: The table.
        num_embeddings: Its rows.
        graph: What a datamodule has as its ``data``.

    Raises:
        ValueError: No graph, or one of another number of nodes.
    """
    if not isinstance(graph, Data) or ("edge_index" not in graph and "adj_t" not in graph):
        have = "nothing" if graph is None else f"a {type(graph).__name__}"
        raise ValueError(
            f"The rows of {name!r} are to be ordered by a graph, but the datamodule has {have} as "
            f"its attribute `data`, no torch_geometric.data.Data with edges: pass "
            f"Tensorize(edge_index=…), an order made before, or order='none'."
        )
    if graph.num_nodes != num_embeddings:
        raise ValueError(
            f"{name!r} has {num_embeddings} rows, the datamodule's graph {graph.num_nodes} nodes: "
            f"pass Tensorize(edge_index=…) with edges between the rows of the table, or "
            f"order='none'."
        )
    if "edge_index" in graph:
        return graph.edge_index
    if isinstance(graph.adj_t, Tensor):
        return graph.adj_t.to_sparse_coo().indices().flip(0)
    target, source, _ = graph.adj_t.coo()  # of torch_sparse
    return torch.stack([source, target])


def print_tables(tables: Sequence[TensorizedTable], console: Console | None = None) -> None:
    """Prints what shrank, a line per table."""
    view = Table(title="Embedding tables as tensor trains", padding=(0, 0))
    view.add_column("table", overflow="fold")
    for name in ("size", "row factors", "ranks"):
        view.add_column(name, justify="right", no_wrap=True)
    view.add_column("order")
    with_error = any(table.error is not None for table in tables)
    for name in ("before", "after", "saving", *(["error"] if with_error else [])):
        view.add_column(name, justify="right", no_wrap=True)
    for table in tables:
        view.add_row(
            table.name,
            f"{table.num_embeddings:,} × {table.embedding_dim}",
            " ".join(map(str, table.rows)),
            " ".join(map(str, table.ranks)),
            table.order,
            f"{table.num_embeddings * table.embedding_dim:,}",
            f"{table.parameters:,}",
            f"{table.reduction:.1f}×",
            *([] if not with_error else ["" if table.error is None else f"{table.error:.1%}"]),
        )
    (console or Console()).print(view)


# --- finding --------------------------------------------------------------------------------------


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _nothing_found(pattern: str, layers: dict[str, nn.Module], tables: dict[str, Any]) -> str:
    if pattern in layers:
        kind = type(layers[pattern]).__name__
        return f"modules: {pattern!r} is a {kind}; only nn.Embedding tables become tensor trains."
    sizes = [f"{name} ({t.num_embeddings} × {t.embedding_dim})" for name, t in tables.items()]
    known = ", ".join(sizes) or "none"
    hint = near_matches(pattern, list(tables))
    return f"modules: {pattern!r} names no nn.Embedding.{hint} Tables of this module: {known}."


def _owners(module: nn.Module) -> dict[int, list[tuple[str, str]]]:
    """Of each parameter the modules, by name, and the attributes that hold it."""
    owners: dict[int, list[tuple[str, str]]] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        for attribute, parameter in layer._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((name, attribute))
    return owners


def _found(
    name: str,
    table: nn.Embedding,
    layers: dict[str, nn.Module],
    owners: dict[int, list[tuple[str, str]]],
) -> FoundTable:
    if type(table) is not nn.Embedding:
        raise ValueError(
            f"modules: {name!r} is a {type(table).__name__}, whose own ways a TTEmbedding would "
            f"not have: put a TTEmbedding into it by hand."
        )
    refused = {
        "sparse": table.sparse,
        "max_norm": table.max_norm is not None,
        "scale_grad_by_freq": table.scale_grad_by_freq,
    }
    for argument, is_set in refused.items():
        if is_set:
            raise ValueError(
                f"modules: {name!r} has {argument}={getattr(table, argument)}, which means nothing "
                f"to cores that all rows share (their gradients are small and dense): make the "
                f"nn.Embedding without it"
                + (", and use an optimizer for dense gradients." if argument == "sparse" else ".")
            )
    sharers = owners[id(table.weight)]
    for other, attribute in sharers:
        layer = layers[other]
        is_alike = type(layer) is nn.Embedding and layer.padding_idx == table.padding_idx
        if not is_alike:
            raise ValueError(
                f"modules: the table of {name!r} is also '{other}.{attribute}'. Cores cannot be "
                f"shared with it: untie the two, or leave {name!r} out."
            )
    return FoundTable(tuple(other for other, _ in sharers), table)
