r"""Cores of a table: how they begin, and their scale.

Core :math:`k` is a tensor of shape :math:`(p_k, R_{k-1}, q_k, R_k)`: the slices of its digits one
after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lit_gnncompress.embedding.factors import TTShape
from lit_gnncompress.embedding.limits import check_orthogonal

Init = Literal["orthogonal", "semi_orthogonal", "gaussian", "uniform"]


def initial_cores(
    shape: TTShape,
    init: Init = "semi_orthogonal",
    std: float = 1.0,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> list[Tensor]:
    r"""Cores of a random table, drawn from torch's generator.

    Whatever the ``init``, the mean square of all :math:`\prod p_k \times \prod q_k` entries of the
    table is ``std ** 2``, ranks and all, and the entries of every core have the same mean square,
    so that one learning rate suits them all.

    Args:
        shape: Factors and ranks.
        init: ``"orthogonal"``: the columns of the table are orthogonal,
            :math:`W^T W = \prod p_k \, std^2 I` (Yin et al., KDD 2022, algorithm 1, which leaves
            out the factor); ``"semi_orthogonal"``: the same where the factors allow it; a core
            that they do not allow it has orthogonal rows where the others have orthogonal
            columns; ``"gaussian"``, ``"uniform"``: independent entries.
        std: Root mean square of the entries of the table; that of ``nn.Embedding`` is 1.
        device: Of the cores.
        dtype: Of the cores; torch's default dtype if ``None``.

    Returns:
        The cores, core ``k`` of shape ``shape.core_shapes[k]``.

    Raises:
        ValueError: An unknown ``init``, an ``std`` that is not positive, or, if
            ``"orthogonal"``, a core with :math:`R_{k-1} q_k > p_k R_k`.
    """
    check_init(init, std)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if init == "orthogonal":
        check_orthogonal(shape)
    # Neither QR nor sums of many squares are for narrow types.
    wide = torch.promote_types(dtype, torch.float32)
    cores = [_DRAW[init](core, device, wide) for core in shape.core_shapes]
    cores = rescaled(cores, std * math.sqrt(shape.num_rows * shape.embedding_dim))
    return [core.to(dtype) for core in cores]


def check_init(init: str, std: float) -> None:
    """Refuses what :func:`initial_cores` cannot do for any shape.

    Raises:
        ValueError: An unknown ``init``, or an ``std`` that is not positive.
    """
    if init not in get_args(Init):
        raise ValueError(f"init={init!r} is none of {', '.join(get_args(Init))}.")
    if not 0 < std < math.inf:
        raise ValueError(f"std={std} must be a positive number.")


def rescaled(cores: Sequence[Tensor], norm: float | None = None) -> list[Tensor]:
    """Cores whose entries have the same mean square in each.

    Args:
        cores: Core ``k`` of shape ``(p_k, R_{k-1}, q_k, R_k)``.
        norm: Frobenius norm of the table that they are to make; as before if ``None``.

    Returns:
        The cores, each multiplied by a number; as they were if they make a table of zeros.
    """
    logs = [core.detach().double().square().mean().sqrt().log() for core in cores]
    if norm is None:
        level = sum(logs) / len(cores)
    else:
        level = (sum(logs) + math.log(norm) - log_norm(cores)) / len(cores)
    factors = [(level - log).exp() for log in logs]
    if not all(bool(factor.isfinite()) for factor in factors):
        return list(cores)
    return [core * factor.to(core.dtype) for core, factor in zip(cores, factors, strict=True)]


def log_norm(cores: Sequence[Tensor]) -> Tensor:
    """Logarithm of the Frobenius norm of the table, found without making it; float64, no shape."""
    gram = torch.ones(1, 1, dtype=torch.float64, device=cores[0].device)
    log = gram.new_zeros(())
    for core in cores:
        slices = core.detach().to(torch.float64)
        gram = torch.einsum("ac,iajb,icjd->bd", gram, slices, slices)
        size = gram.diagonal().sum()
        # Otherwise norms of many large cores leave the range of numbers.
        gram, log = gram / size, log + size.log()
    return log / 2


# --- what cores begin with ------------------------------------------------------------------------


def _orthogonal(
    shape: tuple[int, int, int, int], device: torch.device | str | None, dtype: torch.dtype
) -> Tensor:
    p, before, q, after = shape
    across, along = before * q, p * after
    size = (max(across, along), min(across, along))
    basis = torch.linalg.qr(torch.randn(size, device=device, dtype=dtype)).Q
    matrix = basis.T if across <= along else basis
    return matrix.reshape(before, q, p, after).permute(2, 0, 1, 3).contiguous()


def _gaussian(
    shape: tuple[int, int, int, int], device: torch.device | str | None, dtype: torch.dtype
) -> Tensor:
    return torch.randn(shape, device=device, dtype=dtype)


def _uniform(
    shape: tuple[int, int, int, int], device: torch.device | str | None, dtype: torch.dtype
) -> Tensor:
    return torch.rand(shape, device=device, dtype=dtype) * 2 - 1


_DRAW: dict[str, Callable[..., Tensor]] = {
    "orthogonal": _orthogonal,
    "semi_orthogonal": _orthogonal,
    "gaussian": _gaussian,
    "uniform": _uniform,
}
