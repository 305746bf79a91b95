"""Sums of rows of a table that is stored as a tensor train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_gnncompress.kernels.library import define
from lit_gnncompress.kernels.tt_embedding_bag_backward import tt_embedding_bag_backward
from lit_gnncompress.kernels.tt_lookup import check_cores, check_lookup


def tt_embedding_bag(
    indices: Tensor, offsets: Tensor, cores: Sequence[Tensor], weights: Tensor | None = None
) -> Tensor:
    r"""Sums, over bags of indices, of the rows of the table whose tensor train is ``cores``.

    .. math:: out_b = \sum_{t = offsets_b}^{offsets_{b+1} - 1} weights_t \, row_{indices_t}

    The rows are those of :func:`lit_gnncompress.kernels.tt_lookup`; they are added up where they
    are made (on a CPU, other than in float64), so that no memory holds them. Backward keeps the
    same 12 bytes an index, the offsets and the weights. Sums are taken in float32, in float64 of
    float64 cores, and differentiable once, in ``cores`` and ``weights``. Both passes give the same
    bits whatever the number of threads of a CPU; on a GPU the forward pass does, and the backward
    pass with ``torch.use_deterministic_algorithms(True)``.

    Args:
        indices: int64 or int32, shape ``(B,)``.
        offsets: First index of each bag and, last, their number: int64 or int32, shape
            ``(bags + 1,)``, from 0 to ``B``, never falling. Two that are equal make an empty bag.
        cores: See :func:`lit_gnncompress.kernels.tt_lookup`.
        weights: Of each index, dtype of the cores, shape ``(B,)``; 1 if ``None``.

    Returns:
        Shape ``(bags, prod(q))``, dtype of the cores; zeros for empty bags.

    Raises:
        ValueError: What :func:`lit_gnncompress.kernels.tt_lookup` refuses; offsets that do not
            begin with 0, fall, or do not end with the number of indices (on a GPU, which is not
            waited for, an assertion of the device); weights of another shape, dtype or device.
        IndexError: An index that is no row.
    """
    check_cores(cores)
    check_lookup(indices, cores)
    if indices.dim() != 1:
        raise ValueError(f"indices must have one dimension, got shape {tuple(indices.shape)}.")
    check_offsets(offsets, indices)
    if weights is not None:
        _check_weights(weights, indices, cores)
    args = (indices, offsets.long(), weights, list(cores), torch.is_grad_enabled())
    return _tt_embedding_bag(*args)[0]


def check_offsets(offsets: Tensor, indices: Tensor) -> None:
    """Refuses what does not split all indices into bags.

    Args:
        offsets: First index of each bag and, last, their number.
        indices: Shape ``(B,)``.

    Raises:
        ValueError: Naming the place and the values.
    """
    if offsets.dim() != 1 or offsets.numel() == 0 or offsets.dtype not in _INTEGERS:
        raise ValueError(
            f"offsets must be int64 or int32 of shape (bags + 1,), got {offsets.dtype} of shape "
            f"{tuple(offsets.shape)}."
        )
    if offsets.device != indices.device:
        raise ValueError(
            f"offsets are on {offsets.device}, indices on {indices.device}: move one of them."
        )
    if offsets.is_meta:
        return
    count = indices.numel()
    sizes = offsets.diff()
    if torch.compiler.is_compiling() or offsets.is_cuda:
        fits = (offsets[0] == 0) & (offsets[-1] == count) & (sizes >= 0).all()
        torch._assert_async(fits, f"offsets do not split {count} indices into bags")
        return
    if int(offsets[0]) != 0:
        raise ValueError(f"offsets[0]={int(offsets[0])} must be 0: the first bag begins there.")
    if bool((falls := sizes < 0).any()):
        k = int(falls.nonzero()[0, 0])
        raise ValueError(
            f"offsets[{k + 1}]={int(offsets[k + 1])} is below offsets[{k}]={int(offsets[k])}: "
            f"offsets may not fall. Sort the bags."
        )
    if int(offsets[-1]) != count:
        k = offsets.numel() - 1
        raise ValueError(
            f"offsets[{k}]={int(offsets[-1])} must be the number of indices, {count}: the last "
            f"bag ends there."
        )


_INTEGERS = (torch.int64, torch.int32)


def _check_weights(weights: Tensor, indices: Tensor, cores: Sequence[Tensor]) -> None:
    if weights.shape != indices.shape:
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}, indices {tuple(indices.shape)}: give each "
            f"index one."
        )
    if weights.dtype != cores[0].dtype or weights.device != cores[0].device:
        raise ValueError(
            f"weights are {weights.dtype} on {weights.device}, cores are {cores[0].dtype} on "
            f"{cores[0].device}: convert or move one of them."
        )


def _fake(
    indices: Tensor, offsets: Tensor, weights: Tensor | None, cores: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    width = math.prod(core.size(2) for core in cores)
    slots = indices.numel() if keep else 0
    out = cores[0].new_empty(offsets.numel() - 1, width)
    perm, left, right = (indices.new_empty(slots, dtype=torch.int32) for _ in range(3))
    return out, perm, left, right


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, offsets, weights, cores, _ = inputs
    _, *order = output
    ctx.mark_non_differentiable(*order)
    ctx.save_for_backward(offsets, weights, *order, *cores)


def _backward(
    ctx: Any, grad: Tensor, *_: Any
) -> tuple[None, None, Tensor | None, list[Tensor], None]:
    offsets, weights, perm, left, right, *cores = ctx.saved_tensors
    to_weights = weights is not None and ctx.needs_input_grad[2]
    of_cores, of_weights = tt_embedding_bag_backward(
        grad, offsets, weights, cores, perm, left, right, to_weights
    )
    return None, None, of_weights if to_weights else None, of_cores, None


_tt_embedding_bag = define(
    "tt_embedding_bag(Tensor indices, Tensor offsets, Tensor? weights, Tensor[] cores, bool keep) "
    "-> (Tensor out, Tensor perm, Tensor left, Tensor right)",
    _fake,
    _backward,
    _setup_context,
)
