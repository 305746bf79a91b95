"""Factors and ranks: into which cores a table is split, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NUM_FACTORS = range(2, 5)
"""How many cores a table can have."""


@dataclass(frozen=True)
class TTShape:
    r"""Factors and ranks of a table in tensor-train form (Oseledets, 2011).

    Core :math:`k = 1 \dots d` has shape :math:`(p_k, R_{k-1}, q_k, R_k)` with
    :math:`R_0 = R_d = 1`. Row :math:`i` has the digits :math:`i = (i_1 p_2 + i_2) p_3 + i_3`.

    Args:
        rows: :math:`p_1 \dots p_d`, 2 to 4 of them.
        columns: :math:`q_1 \dots q_d`.
        ranks: The inner ranks :math:`R_1 \dots R_{d-1}`.

    Raises:
        ValueError: Numbers of factors that do not fit each other, or numbers below 1.

    Example:
        >>> TTShape(rows=(125, 140, 140), columns=(4, 5, 5), ranks=(8, 8)).num_parameters
        54400
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    ranks: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "ranks"):
            object.__setattr__(self, name, checked_numbers(name, getattr(self, name)))
        check_num_factors("rows", len(self.rows))
        _check_as_many(self.rows, self.columns)
        if len(self.ranks) != len(self.rows) - 1:
            raise ValueError(
                f"rank={self.ranks} are {len(self.ranks)} ranks: between {len(self.rows)} cores "
                f"are {len(self.rows) - 1}."
            )

    @classmethod
    def of_rank(cls, rows: Sequence[int], columns: Sequence[int], rank: int) -> TTShape:
        """The same rank between all cores, where a table can have one that high.

        Above :func:`highest_ranks` more parameters would not mean more tables.

        Raises:
            ValueError: As the class.
        """
        highest = highest_ranks(rows, columns)
        return cls(tuple(rows), tuple(columns), tuple(min(rank, most) for most in highest))

    @property
    def core_shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Shape ``(p_k, R_{k-1}, q_k, R_k)`` of each core."""
        ranks = (1, *self.ranks, 1)
        factors = zip(self.rows, self.columns, strict=True)
        return tuple((p, ranks[k], q, ranks[k + 1]) for k, (p, q) in enumerate(factors))

    @property
    def num_rows(self) -> int:
        """Rows there is room for: the product of ``rows``."""
        return math.prod(self.rows)

    @property
    def embedding_dim(self) -> int:
        """The product of ``columns``."""
        return math.prod(self.columns)

    @property
    def num_parameters(self) -> int:
        """Numbers in all cores."""
        return sum(math.prod(shape) for shape in self.core_shapes)


def check_num_factors(name: str, count: int) -> None:
    """Refuses other than 2 to 4 factors.

    Raises:
        ValueError: Naming the argument.
    """
    if count not in NUM_FACTORS:
        raise ValueError(f"{name}: {count} factors; a table is split into 2, 3 or 4.")


def _check_as_many(rows: Sequence[int], columns: Sequence[int]) -> None:
    if len(columns) != len(rows):
        raise ValueError(
            f"columns={tuple(columns)} are {len(columns)} factors and rows={tuple(rows)} "
            f"{len(rows)}: both need as many."
        )


def highest_ranks(rows: Sequence[int], columns: Sequence[int]) -> tuple[int, ...]:
    """The inner ranks that suffice for every table of these factors.

    Raises:
        ValueError: Other numbers of rows than of columns.
    """
    _check_as_many(rows, columns)
    sizes = [p * q for p, q in zip(rows, columns, strict=True)]
    cuts = range(1, len(sizes))
    return tuple(min(math.prod(sizes[:cut]), math.prod(sizes[cut:])) for cut in cuts)


# --- factors --------------------------------------------------------------------------------------


def balanced_rows(num_embeddings: int, num_factors: int = 3) -> tuple[int, ...]:
    """Nearly equal factors with room for all rows, the larger ones last.

    Args:
        num_embeddings: Rows to have room for.
        num_factors: How many factors, 2 to 4.

    Returns:
        The factors; their product is at least ``num_embeddings``.

    Raises:
        ValueError: Numbers below 1, or more factors than 4.

    Example:
        >>> balanced_rows(1_000_000)
        (100, 100, 100)
    """
    _number("num_embeddings", num_embeddings)
    check_num_factors("num_factors", num_factors)
    factors, rest = [], num_embeddings
    for left in range(num_factors, 0, -1):
        factor = round(rest ** (1 / left))
        factor += factor**left < rest
        factors.append(factor)
        rest = -(-rest // factor)
    return tuple(sorted(factors))


def graph_rows(
    num_embeddings: int, num_factors: int = 3, part_size: int = 50, padding: float = 0.05
) -> tuple[int, ...]:
    """Factors for rows in the order of a graph: many parts, few in each, few places in those.

    With most of the cores' parameters in the first, which tells the parts, this did best on graphs
    without features: ``(N / 50, 6, 9)``.

    Args:
        num_embeddings: Number of nodes, ``N``.
        num_factors: How many factors, 2 to 4.
        part_size: Nodes of a part of the first level.
        padding: Free places to have, as a share of the nodes: parts are not exactly equal.

    Returns:
        The factors; their product is at least ``(1 + padding) * num_embeddings``.

    Raises:
        ValueError: Numbers below 1, more factors than 4, or a padding that is negative or not
            finite.

    Example:
        >>> graph_rows(13_752)
        (276, 6, 9)
    """
    _number("num_embeddings", num_embeddings)
    _number("part_size", part_size)
    check_num_factors("num_factors", num_factors)
    if not 0 <= padding < math.inf:
        raise ValueError(
            f"padding={padding} must be a share of the nodes, 0 or more and finite: 0.05 leaves a "
            f"free place for each 20."
        )
    parts = -(-num_embeddings // part_size)
    places = math.ceil(num_embeddings / parts * (1 + padding))
    inner: list[int] = []
    for left in range(num_factors - 1, 1, -1):
        inner.append(max(1, math.floor(0.85 * places ** (1 / left))))  # the last one is cheapest
        places = -(-places // inner[-1])
    return (parts, *inner, places)


def smallest_rows(num_embeddings: int, columns: Sequence[int], rank: int) -> tuple[int, ...]:
    """Factors with which cores of a rank have the fewest parameters: those of equal cores.

    Slices of inner cores, which have a rank on both sides, are the largest: these cores get few.
    Steps of training, whose time goes into cores as well as into rows, are quick with them.

    Args:
        num_embeddings: Rows to have room for.
        columns: Factors of the columns, 2 to 4.
        rank: Rank between all cores.

    Returns:
        As many factors as ``columns``; their product is at least ``num_embeddings``.

    Raises:
        ValueError: Numbers below 1, or other than 2 to 4 columns.

    Example:
        >>> smallest_rows(10_000_000, (8, 2, 4), rank=32)
        (341, 43, 682)
    """
    _number("num_embeddings", num_embeddings)
    _number("rank", rank)
    check_num_factors("columns", len(checked_numbers("columns", columns)))
    last = len(columns) - 1
    sizes = {k: q * rank ** (1 if k in (0, last) else 2) for k, q in enumerate(columns)}
    factors, rest = [1] * len(columns), num_embeddings
    # The smallest factor first: it suffers most from being a whole number.
    open_factors = sorted(sizes, key=lambda k: -sizes[k])
    while open_factors:
        left = len(open_factors)
        core = (rest * math.prod(sizes[k] for k in open_factors)) ** (1 / left)
        k = open_factors.pop(0)
        factors[k] = rest if left == 1 else max(1, round(core / sizes[k]))
        rest = -(-rest // factors[k])
    return tuple(factors)


def balanced_columns(embedding_dim: int, num_factors: int = 3) -> tuple[int, ...]:
    """The factors of a width with the least sum, the largest first.

    Args:
        embedding_dim: Columns of the table.
        num_factors: How many factors, 2 to 4.

    Returns:
        The factors; their product is ``embedding_dim``.

    Raises:
        ValueError: Numbers below 1, or more factors than 4.

    Example:
        >>> balanced_columns(100)
        (5, 5, 4)
    """
    _number("embedding_dim", embedding_dim)
    check_num_factors("num_factors", num_factors)
    return min(_factorisations(embedding_dim, num_factors, embedding_dim), key=sum)


def _factorisations(number: int, count: int, most: int) -> list[tuple[int, ...]]:
    """All descending factors of a number, none above ``most``."""
    if count == 1:
        return [(number,)] if number <= most else []
    return [
        (factor, *rest)
        for factor in range(min(number, most), 0, -1)
        if number % factor == 0 and factor**count >= number
        for rest in _factorisations(number // factor, count - 1, factor)
    ]


def checked_numbers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """Whole numbers above 0.

    Raises:
        ValueError: Naming the argument.
    """
    return tuple(_number(name, value) for value in values)


def _number(name: str, value: int) -> int:
    if isinstance(value, bool) or int(value) != value or value < 1:
        name = "rank" if name == "ranks" else name
        raise ValueError(f"{name}: {value} must be a whole number, 1 or more.")
    return int(value)
