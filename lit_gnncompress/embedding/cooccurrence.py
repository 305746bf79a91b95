"""Orders of the categories of a table without a graph: by what they occur with, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_gnncompress.embedding.node_order import NodeOrder
from lit_gnncompress.embedding.order_progress import order_progress
from lit_gnncompress.embedding.ordering import hierarchical_order
from lit_gnncompress.embedding.typed_graphs import TypedGraph

_LINKS = 4  # of a row in a draw: through its rarest values, which tell most
_MOST_LINKS = 2**22  # of all draws: what METIS cuts in some seconds
_MOST_DRAWS = 16  # more hardly made better orders

Array = NDArray[np.int64]


def cooccurrence_order(
    categories: Tensor,
    field: int,
    num_embeddings: int,
    rows: Sequence[int],
    *,
    seed: int = 0,
    max_rows: int = 2**19,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> NodeOrder:
    r"""Orders categories so that those that occur with the same others share leading digits.

    Two categories :math:`a, b` of the field are linked by the values :math:`v` of other fields that
    both occur with. Each row is paired with another one, drawn at random, of the same :math:`v`, so
    that :math:`a` and :math:`b` are drawn about :math:`n_{av} n_{bv} / n_v` times: as often as a
    walk of two steps between categories and values takes from one to the other. A pair weighs
    :math:`\log(n / n_v) / \sqrt{n_a n_b}`: what occurs with everything tells nothing. The graph of
    these links is cut by :func:`~lit_gnncompress.embedding.hierarchical_order`; categories that
    have none lie where there is room.

    Where rows have labels, give those that are positive alone, such as clicks. Others often show
    which rows were drawn or shown rather than what goes together: on Frappe, whose other rows were
    drawn at random, tables in the order of all rows were no better than in none, and those of the
    positive rows better than both; on Criteo's sample all were alike.

    Memory is 40 bytes for each value of ``max_rows`` rows, and that of a graph of the categories
    with four million edges.

    Args:
        categories: Rows to train on, the positive ones of them, int64 or int32, shape ``(n, F)``.
        field: Which column is that of the table.
        num_embeddings: Categories of that field: rows of the table.
        rows: Factors ``p_1 … p_d`` of the rows of the table. A few percent more places than
            categories make a better order.
        seed: Seed of the pairs and of the cuts.
        max_rows: How many rows are looked at, spread evenly over all of them.
        cache_dir: Folder where cuts are kept, see
            :func:`~lit_gnncompress.embedding.hierarchical_order`.
        progress: Whether to show progress bars, on terminals only.

    Returns:
        The order. As rows to train on differ between folds while the table stays the same, it has
        no ``graph_hash``.

    Raises:
        TypeError: ``categories`` is no tensor of integers.
        ValueError: It has other than two dimensions or a single column, there is no such ``field``,
            more categories than places, or ``max_rows`` below 1.
        IndexError: A category of the field that has no row in the table.
        ImportError: pymetis is not installed.

    Example:
        >>> rows = torch.tensor([[0, 7], [1, 8], [2, 7], [3, 8]])  # 0 and 2 occur with 7
        >>> cooccurrence_order(rows, field=0, num_embeddings=4, rows=(2, 2)).parts(1)
        tensor([0, 1, 0, 1])
    """
    _check_table(categories, field, num_embeddings, rows)
    if max_rows < 1:
        raise ValueError(f"max_rows={max_rows} must be 1 or more.")
    random = np.random.default_rng(seed)
    sample = _sample(categories, max_rows, random)
    own = sample[:, field]
    _check_categories(own, num_embeddings, f"categories[:, {field}]")
    pairs, weight = _links(sample, field, random, progress)
    order = hierarchical_order(
        torch.from_numpy(pairs),
        num_embeddings,
        rows,
        edge_weight=torch.from_numpy(weight),
        seed=seed,
        cache_dir=cache_dir,
        progress=progress,
    )
    return replace(order, method="cooccurrence", graph_hash=None)


def frequency_order(categories: Tensor, num_embeddings: int, rows: Sequence[int]) -> NodeOrder:
    """Orders categories by how often they occur, so that the most frequent share leading digits.

    Args:
        categories: The category of the table in each row to train on, int64 or int32, shape
            ``(n,)``.
        num_embeddings: Categories: rows of the table.
        rows: Factors ``p_1 … p_d`` of the rows of the table.

    Returns:
        The order: the most frequent category first, equally frequent ones as they are. It has no
        ``graph_hash``.

    Raises:
        TypeError: ``categories`` is no tensor of integers.
        ValueError: It has other than one dimension, or there are more categories than places.
        IndexError: A category that has no row in the table.

    Example:
        >>> frequency_order(torch.tensor([2, 1, 2]), num_embeddings=4, rows=(2, 2)).place
        tensor([2, 1, 0, 3])
    """
    _check_integers(categories, 1, "(n,)")
    _check_room(num_embeddings, rows)
    values = categories.detach().cpu().numpy()
    _check_categories(values, num_embeddings, "categories")
    count = np.bincount(values, minlength=num_embeddings)
    place = np.empty(num_embeddings, np.int64)
    place[np.argsort(-count, kind="stable")] = np.arange(num_embeddings)
    return NodeOrder(tuple(rows), torch.from_numpy(place), "frequency")


# --- links ----------------------------------------------------------------------------------------


def _links(
    sample: Array, field: int, random: np.random.Generator, progress: bool
) -> tuple[Array, NDArray[np.float64]]:
    """Pairs of categories, shape ``(2, E)``, and how much each weighs, shape ``(E,)``."""
    own = sample[:, field]
    others = np.delete(sample, field, axis=1)
    draws = max(1, min(_MOST_DRAWS, _MOST_LINKS // max(1, len(own) * _LINKS)))
    pairs, weights = [], []
    with order_progress(draws, progress) as advance:
        for _ in range(draws):
            advance("links between categories", 0)
            row, partner, telling = _paired_rows(own, others, random)
            pairs.append(np.stack([own[row], own[partner]]))
            weights.append(telling)
            advance("links between categories", 1)
    ends = np.concatenate(pairs, axis=1)
    count = np.bincount(own, minlength=1)
    return ends, np.concatenate(weights) / np.sqrt(count[ends].prod(axis=0, dtype=np.float64))


def _paired_rows(
    own: Array, others: Array, random: np.random.Generator
) -> tuple[Array, NDArray[np.int32], NDArray[np.float32]]:
    """Rows, a partner for each through one of its rarest values, and how much that value tells."""
    partner = np.empty(others.shape, np.int32)
    telling = np.empty(others.shape, np.float32)
    for k in range(others.shape[1]):
        partner[:, k], telling[:, k] = _partners(others[:, k], random)
        telling[own[partner[:, k]] == own, k] = 0  # a link to itself is none
    if others.shape[1] > _LINKS:
        kept = np.argpartition(-telling, _LINKS - 1, axis=1)[:, :_LINKS]
        partner = np.take_along_axis(partner, kept, axis=1)
        telling = np.take_along_axis(telling, kept, axis=1)
    row, column = telling.nonzero()
    return row, partner[row, column], telling[row, column]


def _partners(value: Array, random: np.random.Generator) -> tuple[Array, NDArray[np.float32]]:
    """For each row another one of the same value, and how much the value tells.

    The rows of a value are drawn into a circle; each is followed by its partner.
    """
    mixed = random.permutation(len(value))
    circle = mixed[np.argsort(value[mixed], kind="stable")]
    _, first, count = np.unique(value[circle], return_index=True, return_counts=True)
    after = np.arange(1, len(value) + 1)
    after[first + count - 1] = first
    partner = np.empty_like(circle)
    partner[circle] = circle[after]
    telling = np.empty(len(value), np.float32)
    telling[circle] = np.repeat(np.log(len(value) / count), count)
    return partner, telling


def _sample(categories: Tensor, max_rows: int, random: np.random.Generator) -> Array:
    """The rows, or one of each of ``max_rows`` equal stretches."""
    num_rows = len(categories)
    if num_rows <= max_rows:
        return categories.detach().cpu().numpy().astype(np.int64)
    ends = np.arange(max_rows + 1) * num_rows // max_rows
    kept = ends[:-1] + (random.random(max_rows) * np.diff(ends)).astype(np.int64)
    return categories[torch.from_numpy(kept)].detach().cpu().numpy().astype(np.int64)


# --- checks ---------------------------------------------------------------------------------------


def _check_table(categories: Tensor, field: int, num_embeddings: int, rows: Sequence[int]) -> None:
    _check_integers(categories, 2, "(n, F)")
    num_fields = categories.size(1)
    if not 0 <= field < num_fields:
        raise ValueError(f"field={field} is none of the {num_fields} columns, counted from 0.")
    if num_fields == 1:
        raise ValueError(
            "categories has a single column: there is nothing that its categories occur with. "
            "Take frequency_order."
        )
    _check_room(num_embeddings, rows)


def _check_room(num_embeddings: int, rows: Sequence[int]) -> None:
    TypedGraph.single(torch.empty(2, 0, dtype=torch.int64), num_embeddings, rows)


def _check_integers(categories: Tensor, dim: int, shape: str) -> None:
    if not isinstance(categories, Tensor):
        raise TypeError(f"categories must be a tensor, got {type(categories).__name__}.")
    if categories.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"categories must be int64 or int32, got {categories.dtype}.")
    if categories.dim() != dim:
        raise ValueError(f"categories has shape {tuple(categories.shape)}; {shape} is needed.")


def _check_categories(values: Array, num_embeddings: int, name: str) -> None:
    if not len(values):
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= num_embeddings:
        raise IndexError(
            f"{name} has the category {low if low < 0 else high}: num_embeddings="
            f"{num_embeddings}, counted from 0."
        )
