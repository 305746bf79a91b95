"""Cores of a table that is there already."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_gnncompress.embedding.cores import rescaled
from lit_gnncompress.embedding.factors import highest_ranks
from lit_gnncompress.embedding.limits import check_columns, check_rows

_CHUNK = 2**22  # numbers held in float64 at a time


def tt_svd(
    weight: Tensor,
    rows: Sequence[int],
    columns: Sequence[int],
    *,
    rank: int | Sequence[int] | None = None,
    error: float | None = None,
) -> list[Tensor]:
    """The cores nearest to a table, one after the other (Oseledets, 2011, algorithm 1).

    Rows beyond those of the table count as zeros.

    Args:
        weight: The table, floating-point, shape ``(N, prod(columns))``, ``N <= prod(rows)``.
        rows: Its factors of rows, 2 to 4.
        columns: Its factors of columns.
        rank: Rank between all cores, where a table can have one that high, or each inner rank.
        error: Frobenius norm of the difference over that of the table; the least ranks that stay
            below are taken.

    Returns:
        The cores, core ``k`` of shape ``(p_k, R_{k-1}, q_k, R_k)``, in the dtype of ``weight``.

    Raises:
        ValueError: Factors that do not fit the table, a rank below 1, an error that is not in
            (0, 1), neither of them or both, or a table with entries that are not finite.
    """
    if weight.dim() != 2 or not weight.is_floating_point() or weight.numel() == 0:
        raise ValueError(
            f"weight must be a floating-point matrix that is not empty, got {weight.dtype} of "
            f"shape {tuple(weight.shape)}."
        )
    check_rows(rows, weight.size(0))
    check_columns(columns, weight.size(1))
    if (rank is None) == (error is None):
        raise ValueError(f"rank={rank} and error={error}: give one of them.")
    if error is not None and not 0 < error < 1:
        raise ValueError(f"error={error} must lie in (0, 1).")
    ranks = _ranks(rank, rows, columns)
    weight = weight.detach()
    norm = float(torch.linalg.vector_norm(weight, dtype=torch.float64))
    if not math.isfinite(norm):
        raise ValueError("weight has entries that are not finite.")
    # The squares of what each cut leaves out add up.
    left_out = None if error is None else (error * norm) ** 2 / (len(rows) - 1)

    rest = _digits(weight, rows, columns)
    cores: list[Tensor] = []
    before = 1
    for p, q, most in zip(rows, columns, [*ranks, 1], strict=True):
        if len(cores) == len(rows) - 1:
            cores.append(rest.reshape(before, p, q, 1))
            break
        rest = rest.reshape(before * p * q, -1)
        basis = _main_directions(rest, most, left_out)
        rest = basis.T @ rest
        cores.append(basis.reshape(before, p, q, -1))
        before = basis.size(1)
    cores = [core.transpose(0, 1).contiguous() for core in cores]
    return [core.to(weight.dtype) for core in rescaled(cores)]


def _ranks(
    rank: int | Sequence[int] | None, rows: Sequence[int], columns: Sequence[int]
) -> list[int]:
    highest = highest_ranks(rows, columns)
    if rank is None:
        return list(highest)
    asked = [rank] * len(highest) if isinstance(rank, int) else list(rank)
    if len(asked) != len(highest) or min(asked) < 1:
        raise ValueError(
            f"rank={rank} must be 1 or more, or {len(highest)} such numbers for {len(rows)} cores."
        )
    ranks: list[int] = []
    for k, (wanted, most) in enumerate(zip(asked, highest, strict=True)):
        # A rank is at most what the cores before it can carry.
        most = min(most, (ranks[-1] if ranks else 1) * rows[k] * columns[k])
        if wanted > most and not isinstance(rank, int):
            raise ValueError(
                f"rank={tuple(asked)}: R_{k + 1} = {wanted} is above {most}, the highest that a "
                f"table of rows={tuple(rows)}, columns={tuple(columns)} has there."
            )
        ranks.append(min(wanted, most))
    return ranks


def _digits(weight: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """The table by digits of row and column in turns, shape ``(p_1, q_1, p_2, q_2, …)``."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    table = weight.new_zeros(math.prod(rows), weight.size(1), dtype=wide)
    table[: weight.size(0)] = weight
    d = len(rows)
    turns = [place for k in range(d) for place in (k, d + k)]
    return table.view(*rows, *columns).permute(turns).contiguous()


def _main_directions(matrix: Tensor, most: int, left_out: float | None) -> Tensor:
    """Orthonormal columns, at most ``most``, that span nearly what the columns of a matrix do.

    As few as leave out squares of at most ``left_out``, or ``most`` of them.
    """
    tall = matrix.size(0) > matrix.size(1)
    gram = _gram(matrix.T if tall else matrix)
    squares, directions = torch.linalg.eigh(gram)
    squares, directions = squares.flip(0).clamp(min=0), directions.flip(1)
    count = min(most, len(squares))
    if left_out is not None:
        # beyond[c]: squares that c directions leave out.
        beyond = squares.flip(0).cumsum(0).flip(0)
        count = min(count, max(1, int((beyond > left_out).sum())))
    directions = directions[:, :count]
    if tall:
        # The bases of weak directions come out of this orthonormal, too.
        return torch.linalg.qr(matrix @ directions.to(matrix.dtype)).Q
    return directions.to(matrix.dtype)


def _gram(matrix: Tensor) -> Tensor:
    """``matrix @ matrix.T`` in float64, in which the squares of weak directions are not lost."""
    size, width = matrix.shape
    gram = torch.zeros(size, size, dtype=torch.float64, device=matrix.device)
    step = max(1, _CHUNK // max(1, size))
    for start in range(0, width, step):
        part = matrix[:, start : start + step].double()
        gram.addmm_(part, part.T)
    return gram
