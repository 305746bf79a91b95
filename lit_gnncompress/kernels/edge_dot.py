"""A dot product of two nodes on every edge."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_gnncompress.kernels.adjacency import Adjacency, check_rows, transpose
from lit_gnncompress.kernels.library import define


def edge_dot(x: Tensor, y: Tensor, adjacency: Adjacency, heads: int | None = None) -> Tensor:
    r"""The dot product of source and target of every edge, without gathering either.

    .. math:: d_{eh} = \sum_c x_{source(e),\,hC+c} \; y_{target(e),\,hC+c}

    It is the gradient of :func:`aggregate` to edge weights. Differentiable in ``x`` and ``y``.

    Args:
        x: Rows of sources, float32, shape ``(N, F)``.
        y: Rows of targets, float32, shape ``(M, F)``.
        adjacency: The edges.
        heads: Number of heads ``H``, which divide columns evenly: one product for each.

    Returns:
        float32, shape ``(E,)``, or ``(E, H)`` if heads are given; in the caller's order of edges.

    Raises:
        ValueError: Tensors that do not fit each other.
    """
    check_rows("x", x, adjacency.num_sources, adjacency)
    check_rows("y", y, adjacency.num_targets, adjacency)
    if x.size(1) != y.size(1):
        raise ValueError(f"x has {x.size(1)} columns, y has {y.size(1)}: they must be as wide.")
    if heads is not None and (heads < 1 or x.size(1) % heads):
        raise ValueError(f"heads={heads} must divide the {x.size(1)} columns of x.")
    products = _edge_dot(x, y, adjacency.rowptr, adjacency.col, adjacency.perm, heads or 1)
    return products.squeeze(1) if heads is None else products


def _fake(
    x: Tensor, y: Tensor, rowptr: Tensor, col: Tensor, perm: Tensor | None, heads: int
) -> Tensor:
    return x.new_empty(col.size(0), heads)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    from lit_gnncompress.kernels.aggregate import _aggregate

    x, y, rowptr, col, perm = ctx.saved_tensors
    grad_x = grad_y = None
    edges_t = transpose(rowptr, col, perm, x.size(0))
    if ctx.needs_input_grad[0]:
        grad_x = _aggregate(y, *edges_t, grad, "sum", rowptr, col, perm)
    if ctx.needs_input_grad[1]:
        grad_y = _aggregate(x, rowptr, col, perm, grad, "sum", *edges_t)
    return grad_x, grad_y, None, None, None, None


_edge_dot = define(
    "edge_dot(Tensor x, Tensor y, Tensor rowptr, Tensor col, Tensor? perm, int heads) -> Tensor",
    _fake,
    _backward,
    _setup_context,
)
