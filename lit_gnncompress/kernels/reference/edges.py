"""Plain torch: edges some at a time, so that no more messages than those are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lit_gnncompress.kernels.adjacency import slot_rows

_MESSAGES = 1 << 22
"""Numbers in the messages of the edges taken together."""


def edge_chunks(
    rowptr: Tensor, col: Tensor, perm: Tensor | None, width: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Targets, sources and edges (caller's order) of some slots, then of the next ones."""
    row = slot_rows(rowptr, col).long()
    size = max(1, _MESSAGES // max(1, width))
    for start in range(0, col.size(0), size):
        slots = slice(start, start + size)
        sources = col[slots].long()
        edges = torch.arange(start, start + sources.size(0), device=col.device)
        yield row[slots], sources, edges if perm is None else perm[slots].long()


def by_column(weight: Tensor | None, edges: Tensor, width: int) -> Tensor | float:
    """The weight of each column of the messages of ``edges``: shape ``(edges, width)`` or 1."""
    if weight is None:
        return 1.0
    weight = weight[edges].view(edges.size(0), -1)
    return weight.repeat_interleave(width // weight.size(1), dim=1)


def by_head(products: Tensor, heads: int) -> Tensor:
    """Sums over the columns of each head: ``(edges, F)`` to ``(edges, H)``."""
    return products.view(products.size(0), heads, products.size(1) // heads).sum(2)


def reduce_edges(
    take: Callable[[Tensor], Tensor],
    width: int,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
    like: Tensor,
) -> Tensor:
    """Reduces the messages of the rows that ``take`` gives for sources, a dtype like ``like``."""
    start = float("-inf") if reduce == "max" else 0.0
    out = like.new_full((rowptr.size(0) - 1, width), start)
    for row, sources, edges in edge_chunks(rowptr, col, perm, width):
        messages = take(sources) * by_column(weight, edges, width)
        if reduce == "max":
            out.scatter_reduce_(0, row.unsqueeze(1).expand_as(messages), messages, "amax")
        else:
            out.index_add_(0, row, messages)
    degrees = rowptr.diff().unsqueeze(1)
    if reduce == "mean":
        out /= degrees.clamp(min=1)
    return out.masked_fill_(degrees == 0, 0.0)


def shares_of_max(
    take: Callable[[Tensor], Tensor],
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    out: Tensor,
    grad: Tensor,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Sources, edges, source rows and the gradient of their messages, some edges at a time."""
    width = out.size(1)
    ties = torch.zeros_like(out)
    for row, sources, edges in edge_chunks(rowptr, col, perm, width):
        messages = take(sources) * by_column(weight, edges, width)
        ties.index_add_(0, row, (messages == out[row]).to(out.dtype))
    share = grad / ties.clamp(min=1)
    for row, sources, edges in edge_chunks(rowptr, col, perm, width):
        rows = take(sources)
        reached = rows * by_column(weight, edges, width) == out[row]
        yield sources, edges, rows, share[row] * reached


def weight_gradient(
    take: Callable[[Tensor], Tensor],
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor,
    reduce: str,
    out: Tensor | None,
    grad: Tensor,
) -> Tensor:
    """The gradient to ``weight``, ``(E,)`` or ``(E, H)``; ``out`` is what a maximum gave."""
    heads = 1 if weight.dim() == 1 else weight.size(1)
    grad_weight = weight.new_empty(col.size(0), heads)
    if out is not None:
        for _, edges, rows, share in shares_of_max(take, rowptr, col, perm, weight, out, grad):
            grad_weight[edges] = by_head(rows * share, heads)
        return grad_weight.view_as(weight)
    if reduce == "mean":
        grad = grad / rowptr.diff().clamp(min=1).unsqueeze(1)
    for row, sources, edges in edge_chunks(rowptr, col, perm, grad.size(1)):
        grad_weight[edges] = by_head(take(sources) * grad[row], heads)
    return grad_weight.view_as(weight)
