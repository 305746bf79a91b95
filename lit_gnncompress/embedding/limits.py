"""Limits of factors and ranks: room for all rows, the right width, orthogonal cores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from lit_gnncompress.embedding.factors import (
    TTShape,
    balanced_columns,
    balanced_rows,
    check_num_factors,
    checked_numbers,
)


def check_rows(rows: Sequence[int], num_embeddings: int) -> None:
    """Refuses factors without room for all rows.

    Raises:
        ValueError: Says by how much they are too small, and which would do.
    """
    check_num_factors("rows", len(checked_numbers("rows", rows)))
    room = math.prod(rows)
    if room < num_embeddings:
        larger = (*rows[:-1], -(-num_embeddings // math.prod(rows[:-1])))
        raise ValueError(
            f"rows={tuple(rows)} have room for {room} embeddings, {num_embeddings - room} too few "
            f"for num_embeddings={num_embeddings}: rows={larger} or "
            f"rows={balanced_rows(num_embeddings, len(rows))} would do."
        )


def check_columns(columns: Sequence[int], embedding_dim: int) -> None:
    """Refuses factors of another width.

    Raises:
        ValueError: Says which width they have, and which factors would do.
    """
    check_num_factors("columns", len(checked_numbers("columns", columns)))
    if math.prod(columns) != embedding_dim:
        raise ValueError(
            f"columns={tuple(columns)} make {math.prod(columns)} columns, embedding_dim="
            f"{embedding_dim}: columns={balanced_columns(embedding_dim, len(columns))} would do."
        )


def beyond_orthogonal(shape: TTShape) -> list[int]:
    r"""Cores, counted from 1, that cannot be orthogonal: :math:`R_{k-1} q_k > p_k R_k`."""
    shapes = enumerate(shape.core_shapes, 1)
    return [k for k, (p, before, q, after) in shapes if before * q > p * after]


def check_orthogonal(shape: TTShape) -> None:
    """Refuses factors of which no table with orthogonal columns can be made.

    Raises:
        ValueError: Names the core, and proposes an order of the columns or a lower rank.
    """
    if not (beyond := beyond_orthogonal(shape)):
        return
    k = beyond[0]
    p, before, q, after = shape.core_shapes[k - 1]
    remedies = [f"columns={columns}" for columns in _orders_that_fit(shape)[:1]]
    for rank in range(max(shape.ranks, default=1) - 1, 0, -1):
        lower = TTShape.of_rank(shape.rows, shape.columns, rank)
        if not beyond_orthogonal(lower):
            remedies.append(f"rank={rank}")
            break
    remedies.append('init="semi_orthogonal"')
    raise ValueError(
        f"core {k} cannot be orthogonal: R_{k - 1} * q_{k} = {before} * {q} = {before * q} is more "
        f"than p_{k} * R_{k} = {p} * {after} = {p * after}, with rows={shape.rows}, "
        f"columns={shape.columns}, rank={shape.ranks}. Take {' or '.join(remedies)}."
    )


def _orders_that_fit(shape: TTShape) -> list[tuple[int, ...]]:
    orders = sorted(set(itertools.permutations(shape.columns)), reverse=True)
    return [
        order for order in orders if not beyond_orthogonal(TTShape(shape.rows, order, shape.ranks))
    ]
