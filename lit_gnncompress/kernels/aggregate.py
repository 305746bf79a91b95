"""Messages along edges, reduced at their targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_gnncompress.kernels.adjacency import (
    Adjacency,
    check_edge_weight,
    check_reduce,
    check_rows,
    transpose,
)
from lit_gnncompress.kernels.edge_dot import _edge_dot
from lit_gnncompress.kernels.library import define
from lit_gnncompress.kernels.max_backward import max_backward


def aggregate(
    x: Tensor, adjacency: Adjacency, weight: Tensor | None = None, reduce: str = "sum"
) -> Tensor:
    r"""Reduces the weighted rows of a target's sources, without a message of each edge in memory.

    .. math:: y_{t,\,hC+c} = \mathrm{reduce}_{e:\,target(e)=t}\; w_{eh}\, x_{source(e),\,hC+c}

    The mean divides by the number of edges. Targets without edges get zeros. Differentiable in
    ``x`` and ``weight``; of a maximum that several edges reach each takes an equal part of the
    gradient.

    Args:
        x: Rows of sources, float32, shape ``(N, F)``.
        adjacency: The edges.
        weight: float32, shape ``(E,)``, or ``(E, H)`` with ``F = H C``: each head weighs ``C``
            columns. In the caller's order of edges. 1 each if ``None``.
        reduce: ``"sum"``, ``"mean"`` or ``"max"``.

    Returns:
        float32, shape ``(M, F)``.

    Raises:
        ValueError: Tensors that do not fit each other, or another ``reduce``.
    """
    check_reduce(reduce)
    check_rows("x", x, adjacency.num_sources, adjacency)
    check_edge_weight(weight, x.size(1), adjacency)
    edges_t: tuple[Tensor | None, ...] = (None, None, None)
    if x.requires_grad and torch.is_grad_enabled() and reduce != "max":
        back = adjacency.transposed
        edges_t = back.rowptr, back.col, back.perm
    return _aggregate(x, adjacency.rowptr, adjacency.col, adjacency.perm, weight, reduce, *edges_t)


def _fake(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
    rowptr_t: Tensor | None,
    col_t: Tensor | None,
    perm_t: Tensor | None,
) -> Tensor:
    return x.new_empty(rowptr.size(0) - 1, x.size(1))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, rowptr, col, perm, weight, ctx.reduce, *edges_t = inputs
    ctx.num_sources = x.size(0)
    # The rows are read again for the gradient of weights and for places of maxima only.
    needs_x = ctx.needs_input_grad[4] or ctx.reduce == "max"
    out = output if ctx.reduce == "max" else None
    ctx.save_for_backward(x if needs_x else None, rowptr, col, perm, weight, out, *edges_t)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, rowptr, col, perm, weight, out, *edges_t = ctx.saved_tensors
    grad_x: Tensor | None = None
    grad_weight: Any = None
    wants_x, wants_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[4]
    if ctx.reduce == "max":
        grad_x, grad_weight = max_backward(x, rowptr, col, perm, weight, out, grad)
    else:
        if ctx.reduce == "mean":
            grad = grad / rowptr.diff().clamp(min=1).unsqueeze(1)
        if wants_x:
            if edges_t[0] is None:
                edges_t = transpose(rowptr, col, perm, ctx.num_sources)
            grad_x = _aggregate(grad, *edges_t, weight, "sum", rowptr, col, perm)
        if wants_weight:
            heads = 1 if weight.dim() == 1 else weight.size(1)
            grad_weight = _edge_dot(x, grad, rowptr, col, perm, heads)
    grad_weight = grad_weight.view_as(weight) if wants_weight else None
    return grad_x, None, None, None, grad_weight, None, None, None, None


_aggregate = define(
    "aggregate(Tensor x, Tensor rowptr, Tensor col, Tensor? perm, Tensor? weight, str reduce, "
    "Tensor? rowptr_t, Tensor? col_t, Tensor? perm_t) -> Tensor",
    _fake,
    _backward,
    _setup_context,
)
