"""Factors and ranks chosen for a rank or for a size."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence

import torch

from lit_gnncompress.embedding.factors import (
    TTShape,
    balanced_columns,
    balanced_rows,
    check_num_factors,
    highest_ranks,
)
from lit_gnncompress.embedding.limits import (
    beyond_orthogonal,
    check_columns,
    check_orthogonal,
    check_rows,
)

DEFAULT_RANK = 8
"""Above it, accuracy on graphs without features hardly rose while the parameters did."""


def choose_shape(
    num_embeddings: int,
    embedding_dim: int,
    *,
    rank: int | Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    columns: Sequence[int] | None = None,
    num_factors: int | None = None,
    max_parameters: int | None = None,
    orthogonal: bool = False,
    size: str | None = None,
) -> TTShape:
    """Chooses what is not given.

    Rows become balanced factors. Columns become balanced factors, in the order that allows the
    highest rank, that allows orthogonal cores, and that takes the fewest parameters, in this
    order. Three factors are taken, or four where three are too many parameters even at rank 1.

    Args:
        num_embeddings: Rows of the table.
        embedding_dim: Columns of the table.
        rank: Rank between all cores (see :meth:`TTShape.of_rank`), or each inner rank. The
            highest that ``max_parameters`` allows, or 8, if ``None``.
        rows: Factors of the rows.
        columns: Factors of the columns.
        num_factors: How many factors, where neither rows nor columns are given.
        max_parameters: Parameters that all cores may have together.
        orthogonal: Whether only shapes that allow orthogonal cores will do.
        size: The argument and value that ``max_parameters`` follows from, for messages.

    Returns:
        The shape.

    Raises:
        ValueError: Factors that do not fit the table or each other, a rank below 1, no shape that
            is small enough, or, with ``orthogonal``, none that allows orthogonal cores.
    """
    count = _num_factors(rank, rows, columns, num_factors)
    if rows is not None:
        check_rows(rows, num_embeddings)
    if columns is not None:
        check_columns(columns, embedding_dim)
    candidates: list[TTShape] = []
    for factors in (3, 4) if count is None else (count,):
        given_rows = tuple(rows) if rows is not None else balanced_rows(num_embeddings, factors)
        if columns is not None:
            orders = [tuple(columns)]
        else:
            balanced = balanced_columns(embedding_dim, factors)
            orders = sorted(set(itertools.permutations(balanced)), reverse=True)
        for order in orders:
            candidates += _of(given_rows, order, rank, max_parameters, orthogonal)
        if fitting := [shape for shape in candidates if _fits(shape, max_parameters)]:
            best = max(fitting, key=lambda shape: _merit(shape, orthogonal))
            if orthogonal:
                check_orthogonal(best)
            return best
    least = min(candidates, key=lambda shape: shape.num_parameters)
    given = "" if rank is None else f" of rank={rank}"
    asked = f"max_parameters={max_parameters}" if size is None else size
    table = f"{num_embeddings} x {embedding_dim} in {max_parameters} parameters"
    raise ValueError(
        f"{asked} cannot be met ({table}): the smallest cores{given} have {least.num_parameters} "
        f"(rows={least.rows}, columns={least.columns}). Allow as many, or give other factors or a "
        f"lower rank."
    )


def parameters_within(
    num_embeddings: int,
    embedding_dim: int,
    dtype: torch.dtype,
    *,
    rank: int | Sequence[int] | None = None,
    compression: float | None = None,
    max_bytes: int | None = None,
) -> int | None:
    """Parameters that a size allows; ``None`` if there is no limit.

    Args:
        num_embeddings: Rows of the table.
        embedding_dim: Columns of the table.
        dtype: Of the parameters.
        rank: Decides by itself.
        compression: Numbers in the table over parameters, at least.
        max_bytes: Bytes of the parameters, at most.

    Raises:
        ValueError: More than one of the three, or a compression that is not above 0.
    """
    sizes = {"rank": rank, "compression": compression, "max_bytes": max_bytes}
    given = [f"{name}={value}" for name, value in sizes.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} each decide about the rank: give one.")
    if compression is not None:
        if not compression > 0:
            raise ValueError(f"compression={compression} must be above 0, for instance 100.")
        return int(min(num_embeddings * embedding_dim / compression, sys.maxsize))
    return None if max_bytes is None else max_bytes // dtype.itemsize


def _num_factors(
    rank: int | Sequence[int] | None,
    rows: Sequence[int] | None,
    columns: Sequence[int] | None,
    num_factors: int | None,
) -> int | None:
    """How many factors the arguments speak of; ``None`` if of no number."""
    counts = {
        "num_factors": num_factors,
        "rows": None if rows is None else len(rows),
        "columns": None if columns is None else len(columns),
        "rank": None if rank is None or isinstance(rank, int) else len(rank) + 1,
    }
    given = {name: count for name, count in counts.items() if count is not None}
    for name, count in given.items():
        check_num_factors(name, count)
    if len(set(given.values())) > 1:
        said = ", ".join(f"{count} by {name}" for name, count in given.items())
        raise ValueError(f"The numbers of factors differ: {said}.")
    return next(iter(given.values()), None)


def _of(
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    rank: int | Sequence[int] | None,
    max_parameters: int | None,
    orthogonal: bool,
) -> Iterator[TTShape]:
    """The shape of some factors: of the given rank, or of the highest that fits."""
    if rank is not None and not isinstance(rank, int):
        yield TTShape(rows, columns, tuple(rank))
    elif rank is not None or max_parameters is None:
        yield TTShape.of_rank(rows, columns, DEFAULT_RANK if rank is None else rank)
    else:
        low, high = 1, max(highest_ranks(rows, columns))
        while low < high:
            middle = (low + high + 1) // 2
            shape = TTShape.of_rank(rows, columns, middle)
            too_much = not _fits(shape, max_parameters)
            if too_much or (orthogonal and beyond_orthogonal(shape)):
                high = middle - 1
            else:
                low = middle
        yield TTShape.of_rank(rows, columns, low)


def _fits(shape: TTShape, max_parameters: int | None) -> bool:
    return max_parameters is None or shape.num_parameters <= max_parameters


def _merit(shape: TTShape, orthogonal: bool) -> tuple[bool, int, bool, int]:
    can_be = not beyond_orthogonal(shape)
    return (can_be or not orthogonal, max(shape.ranks), can_be, -shape.num_parameters)
