"""Rows of a table that is stored as a tensor train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_gnncompress.kernels.library import define
from lit_gnncompress.kernels.tt_lookup_backward import tt_lookup_backward

INDICES = (torch.int64, torch.int32)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def tt_lookup(indices: Tensor, cores: Sequence[Tensor]) -> Tensor:
    r"""Rows of the table whose tensor train is ``cores`` (Oseledets, 2011).

    .. math:: row_i = G_1[i_1]\, G_2[i_2] \cdots G_d[i_d], \quad
        i = (i_1 p_2 + i_2) p_3 + \ldots + i_d

    The slice :math:`G_k[i_k]` is ``cores[k - 1][i_k]``, of shape :math:`(R_{k-1}, q_k, R_k)`; a
    product runs over the rank between two slices, and the :math:`q_k` of all follow each other.
    Rows are sorted by the digits of the second half of the cores, whose product is worked out once
    for all rows that share them. Backward keeps the digits and their order, 12 bytes a row, and
    works out the rest again. Products are taken in float32, and in float64 of float64 cores.
    Differentiable in ``cores``, once. On a CPU gradients are the same bits every time, whatever the
    number of threads; on a GPU they are with ``torch.use_deterministic_algorithms(True)``.

    Args:
        indices: int64 or int32, any shape.
        cores: Two to four of one dtype, core ``k`` of shape ``(p_k, R_{k-1}, q_k, R_k)``; the first
            rank and the last are 1.

    Returns:
        Shape ``(*indices.shape, prod(q))``, dtype of the cores.

    Raises:
        ValueError: Cores whose number, shapes, dtypes or devices do not fit each other, or indices
            of another dtype or device.
        IndexError: An index that is negative or from ``prod(p)`` on. On a GPU, which is not waited
            for, it is an assertion of the device, as in ``torch.nn.functional.embedding``.
    """
    check_cores(cores)
    check_lookup(indices, cores)
    return _tt_lookup(indices, list(cores), torch.is_grad_enabled())[0]


def check_cores(cores: Sequence[Tensor]) -> None:
    """Refuses what is no tensor train.

    Raises:
        ValueError: Naming the core.
    """
    if not 2 <= len(cores) <= 4:
        raise ValueError(f"There must be 2, 3 or 4 cores, got {len(cores)}.")
    rank = 1
    for k, core in enumerate(cores):
        if core.dim() != 4 or 0 in core.shape:
            raise ValueError(
                f"cores[{k}] must have the shape (p, rank before, q, rank behind), none of it 0, "
                f"got {tuple(core.shape)}."
            )
        if core.size(1) != rank:
            before = "the first rank is" if k == 0 else f"cores[{k - 1}] ends with rank"
            raise ValueError(f"cores[{k}] begins with rank {core.size(1)}, but {before} {rank}.")
        if core.dtype not in DTYPES or core.dtype != cores[0].dtype:
            raise ValueError(
                f"cores[{k}] is {core.dtype}: all must be of the dtype of cores[0], one of "
                f"{', '.join(map(str, DTYPES))}."
            )
        if core.device != cores[0].device:
            raise ValueError(
                f"cores[{k}] is on {core.device}, cores[0] on {cores[0].device}: move one of them."
            )
        rank = core.size(3)
    if rank != 1:
        raise ValueError(f"The last core must end with rank 1, cores[{len(cores) - 1}] has {rank}.")
    for half in (cores[: len(cores) // 2], cores[len(cores) // 2 :]):
        if math.prod([core.size(0) for core in half]) >= 2**31:
            raise ValueError(
                f"Cores of {' × '.join(str(core.size(0)) for core in half)} rows are too large: "
                "digits of half the cores must fit into 32 bits."
            )


def check_lookup(indices: Tensor, cores: Sequence[Tensor]) -> None:
    """Refuses indices that these cores cannot be asked for.

    Raises:
        ValueError: Of another dtype or device, or too many.
    """
    if indices.dtype not in INDICES:
        raise ValueError(f"indices must be int64 or int32, got {indices.dtype}.")
    if indices.device != cores[0].device:
        raise ValueError(
            f"indices are on {indices.device}, cores are on {cores[0].device}: move one of them."
        )
    if indices.numel() >= 2**31:
        raise ValueError(f"{indices.numel()} indices are too many: places of rows have 32 bits.")


def _fake(
    indices: Tensor, cores: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    width = math.prod(core.size(2) for core in cores)
    slots = indices.numel() if keep else 0
    out = cores[0].new_empty(*indices.shape, width)
    perm, left, right = (indices.new_empty(slots, dtype=torch.int32) for _ in range(3))
    return out, perm, left, right


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, cores, _ = inputs
    _, *order = output
    ctx.mark_non_differentiable(*order)
    ctx.save_for_backward(*order, *cores)


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[None, list[Tensor], None]:
    perm, left, right, *cores = ctx.saved_tensors
    return None, tt_lookup_backward(grad, cores, perm, left, right), None


_tt_lookup = define(
    "tt_lookup(Tensor indices, Tensor[] cores, bool keep) "
    "-> (Tensor out, Tensor perm, Tensor left, Tensor right)",
    _fake,
    _backward,
    _setup_context,
)
