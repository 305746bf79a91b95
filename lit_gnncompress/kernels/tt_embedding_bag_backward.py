"""The gradients of sums of rows of a tensor train to its cores and to the weights."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from lit_gnncompress.kernels.library import define


def tt_embedding_bag_backward(
    grad: Tensor,
    offsets: Tensor,
    weights: Tensor | None,
    cores: list[Tensor],
    perm: Tensor,
    left: Tensor,
    right: Tensor,
    to_weights: bool,
) -> tuple[list[Tensor], Tensor]:
    """Gradients of :func:`lit_gnncompress.kernels.tt_embedding_bag` to cores and weights.

    Args:
        grad: Gradient of the sums, shape ``(bags, prod(q))``, dtype of the cores.
        offsets: First index of each bag and, last, their number ``B``.
        weights: As in the forward pass.
        cores: As in the forward pass.
        perm: See :func:`lit_gnncompress.kernels.tt_lookup_backward.tt_lookup_backward`.
        left: See ``perm``.
        right: See ``perm``.
        to_weights: Whether the gradient to the weights is wanted.

    Returns:
        A tensor like each core; and one like the weights, in the dtype of ``grad``, empty unless
        it is wanted.
    """
    return _tt_embedding_bag_backward(grad, offsets, weights, cores, perm, left, right, to_weights)


def _fake(
    grad: Tensor,
    offsets: Tensor,
    weights: Tensor | None,
    cores: list[Tensor],
    perm: Tensor,
    left: Tensor,
    right: Tensor,
    to_weights: bool,
) -> tuple[list[Tensor], Tensor]:
    found = [torch.empty_like(core, memory_format=torch.contiguous_format) for core in cores]
    return found, grad.new_empty(perm.size(0) if to_weights else 0)


def _refuse(ctx: Any, *grads: Any) -> NoReturn:
    raise NotImplementedError(
        "tt_embedding_bag can be differentiated once: its backward has no gradient. Multiply "
        "slices of the cores in torch where second derivatives are needed."
    )


_tt_embedding_bag_backward = define(
    "tt_embedding_bag_backward(Tensor grad, Tensor offsets, Tensor? weights, Tensor[] cores, "
    "Tensor perm, Tensor left, Tensor right, bool to_weights) "
    "-> (Tensor[] of_cores, Tensor of_weights)",
    _fake,
    _refuse,
)
