"""Triton: ``tt_lookup_backward``."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.cuda.tt_half import product_gradients
from lit_gnncompress.kernels.cuda.tt_lookup import factors_of, halves_of, parts_of
from lit_gnncompress.kernels.reference.tt_lookup_backward import tt_lookup_backward as reference


def tt_lookup_backward(
    grad: Tensor, cores: list[Tensor], perm: Tensor, left: Tensor, right: Tensor
) -> list[Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_lookup_backward.tt_lookup_backward`.

    Sums of the rows of a pair are taken in registers, by program, and put together in their order.
    Those of the first half are added by atomics, or sorted too where torch is to be deterministic.
    """
    if cores[0].dtype == torch.float64:
        return reference(grad, cores, perm, left, right)
    return differentiate(grad, cores, left, right, perm, None)


def differentiate(
    grad: Tensor,
    cores: list[Tensor],
    left: Tensor,
    right: Tensor,
    place: Tensor,
    weights: Tensor | None,
) -> list[Tensor]:
    """Gradients to the cores.

    Args:
        grad: Shape ``(…, D)``.
        cores: As of ``tt_lookup_backward``, and so up to ``right``.
        left: See ``cores``.
        right: See ``cores``.
        place: Row of ``grad`` of each slot, int32.
        weights: What the row of each slot was multiplied by, float32; 1 if ``None``.
    """
    dtype, slots = cores[0].dtype, left.size(0)
    if slots == 0:
        return [torch.zeros_like(core, memory_format=torch.contiguous_format) for core in cores]
    deterministic = torch.are_deterministic_algorithms_enabled()
    total: list[Tensor] = []
    with torch.cuda.device_of(grad), torch.autocast("cuda", enabled=False):
        halves = halves_of(cores, slots)
        rows = grad.contiguous()
        rows = rows.view(rows.numel() // rows.size(-1), halves[0].height, -1)
        for part in parts_of(halves, slots):
            a, b, of_a, of_b = factors_of(halves, left[part], right[part])
            found = product_gradients(
                a, b, of_a, of_b, rows, place[part], deterministic, sorted_by_b=True,
                weights=None if weights is None else weights[part],
            )  # fmt: skip
            grads = [
                g
                for half, of_half, keys in zip(halves, found, (left, right), strict=True)
                for g in half.gradients(of_half, keys[part], deterministic)
            ]
            total = grads if not total else [t.add_(g) for t, g in zip(total, grads, strict=True)]
    return [t.to(dtype) for t in total]
