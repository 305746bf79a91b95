"""The gradient of rows of a tensor train to its cores."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from lit_gnncompress.kernels.library import define


def tt_lookup_backward(
    grad: Tensor, cores: list[Tensor], perm: Tensor, left: Tensor, right: Tensor
) -> list[Tensor]:
    """Gradients of :func:`lit_gnncompress.kernels.tt_lookup` to all cores.

    Args:
        grad: Gradient of the rows, shape ``(..., prod(q))`` for ``B`` rows, dtype of the cores.
        cores: As in the forward pass.
        perm: Row of each slot, where slots are sorted by ``right``, int32, shape ``(B,)``.
        left: Digits of the slot's index in the first half of the cores (of three, the first), as
            one number, int32, shape ``(B,)``.
        right: Digits in the second half, the same: ``left * prod(p of that half) + right`` is the
            index.

    Returns:
        A tensor like each core.
    """
    return _tt_lookup_backward(grad, cores, perm, left, right)


def _fake(
    grad: Tensor, cores: list[Tensor], perm: Tensor, left: Tensor, right: Tensor
) -> list[Tensor]:
    return [torch.empty_like(core, memory_format=torch.contiguous_format) for core in cores]


def _refuse(ctx: Any, *grads: Any) -> NoReturn:
    raise NotImplementedError(
        "tt_lookup can be differentiated once: its backward has no gradient. Multiply slices of "
        "the cores in torch where second derivatives are needed."
    )


_tt_lookup_backward = define(
    "tt_lookup_backward(Tensor grad, Tensor[] cores, Tensor perm, Tensor left, Tensor right) "
    "-> Tensor[]",
    _fake,
    _refuse,
)
