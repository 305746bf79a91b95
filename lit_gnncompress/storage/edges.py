"""The edges in hand, sorted by target, kept while the tensors that they come from live."""

from __future__ import annotations

import functools
from collections import deque

import torch
from torch import Tensor

from lit_gnncompress.kept import kept
from lit_gnncompress.kernels import Adjacency
from lit_gnncompress.kernels.same_edges import same_edges


def adjacency_of(
    source_index: Tensor, target_index: Tensor, num_sources: int, num_targets: int
) -> Adjacency:
    """The edges sorted by target; kept while the ``edge_index`` that they come from lives.

    Args:
        source_index: Source of each edge, int64 of shape ``(E,)``.
        target_index: Target of each edge, likewise.
        num_sources: Number of rows that edges start from.
        num_targets: Number of rows that edges end at.
    """
    owner, other = (t if t._base is None else t._base for t in (source_index, target_index))
    sort = functools.partial(_sorted, source_index, target_index, num_sources, num_targets)
    if owner is not other:
        return sort()
    places = tuple((t.data_ptr(), t.numel(), t.stride()) for t in (source_index, target_index))
    return kept(owner, ("adjacency", *places, num_sources, num_targets), sort)


def _sorted(
    source_index: Tensor, target_index: Tensor, num_sources: int, num_targets: int
) -> Adjacency:
    """The edges sorted, or the same ones that were sorted lately: layers rewrite their edges."""
    for adjacency in list(_lately):
        alike = adjacency.device == target_index.device
        alike &= (adjacency.num_sources, adjacency.num_targets) == (num_sources, num_targets)
        if alike and same_edges(source_index, target_index, adjacency):
            return adjacency
    with torch.inference_mode(False):  # a fit may come after a validation of the same edges
        adjacency = Adjacency.from_edge_index(source_index, target_index, num_sources, num_targets)
    _lately.append(adjacency)
    return adjacency


_lately: deque[Adjacency] = deque(maxlen=4)


def edges_of_matrix(matrix: Tensor) -> tuple[Adjacency, Tensor | None]:
    """Edges of a float32 CSR matrix, rows the targets, and their weights; ``None`` if all are 1.

    Args:
        matrix: Sparse CSR, shape ``(M, N)``.
    """
    # A write to its values or indices counts as one to the matrix.
    adjacency, are_ones = kept(matrix, ("edges of a matrix",), lambda: _of_matrix(matrix))
    values = matrix.values()
    return adjacency, None if are_ones and not values.requires_grad else values


def _of_matrix(matrix: Tensor) -> tuple[Adjacency, bool]:
    adjacency = Adjacency.from_csr(matrix.crow_indices(), matrix.col_indices(), matrix.size(1))
    return adjacency, _are_ones(matrix.values())


def _are_ones(values: Tensor) -> bool:
    # Most weights that are not all 1 begin with another number.
    return bool((values[:1] == 1).all()) and bool((values == 1).all())


def edges_into(
    adjacency: Adjacency, start: int, stop: int, weight: Tensor | None
) -> tuple[Adjacency, Tensor | None]:
    """The edges into targets ``start`` to before ``stop``, and their weights."""
    part = adjacency.into(start, stop)
    if weight is None:
        return part, None
    slots = slice(int(adjacency.rowptr[start]), int(adjacency.rowptr[stop]))
    if adjacency.perm is None:
        return part, weight[slots]
    return part, weight.index_select(0, adjacency.perm[slots])


def edges_from(
    adjacency: Adjacency, chosen: Tensor, place: Tensor, num_sources: int
) -> tuple[Adjacency, Tensor]:
    """The edges from some of the sources, and their numbers in the caller's order.

    Args:
        adjacency: All edges.
        chosen: Whether a source is one of them, bool of shape ``(N,)``.
        place: New number of each source, int32 of shape ``(N,)``.
        num_sources: How many are chosen.
    """
    slots = chosen[adjacency.col].nonzero().squeeze(1)
    before = torch.searchsorted(slots, adjacency.rowptr)
    col = place[adjacency.col[slots]]
    edges = slots if adjacency.perm is None else adjacency.perm[slots]
    return Adjacency(before, col, None, num_sources), edges
