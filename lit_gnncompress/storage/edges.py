"""The edges in hand, sorted by target, kept while the tensors that they come from live."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

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
    owners = [t if t._base is None else t._base for t in (source_index, target_index)]
    sizes = (num_sources, num_targets)
    if any(owner.is_inference() for owner in owners):  # whether they change is not known
        return _sorted(source_index, target_index, *sizes)
    places = tuple(
        (t.data_ptr(), t.numel(), t.stride(), owner._version)
        for t, owner in zip((source_index, target_index), owners, strict=True)
    )
    place = (*places, *sizes)
    for source, target, at, adjacency in _kept:
        if at == place and source() is owners[0] and target() is owners[1]:
            return adjacency
    adjacency = _sorted(source_index, target_index, *sizes)
    _kept[:] = [entry for entry in _kept if entry[0]() is not None and entry[1]() is not None]
    _kept.append((*(weakref.ref(owner) for owner in owners), place, adjacency))  # type: ignore
    del _kept[:-_KEPT]
    return adjacency


def _sorted(
    source_index: Tensor, target_index: Tensor, num_sources: int, num_targets: int
) -> Adjacency:
    """The edges sorted, or the same ones that are sorted already and in use."""
    for adjacency in list(_in_use):
        alike = adjacency.device == target_index.device
        alike &= (adjacency.num_sources, adjacency.num_targets) == (num_sources, num_targets)
        if alike and same_edges(source_index, target_index, adjacency):
            return adjacency
    with torch.inference_mode(False):  # training may need them, too
        adjacency = Adjacency.from_edge_index(source_index, target_index, num_sources, num_targets)
    _in_use.add(adjacency)
    return adjacency


_KEPT = 8
_kept: list[tuple[weakref.ref[Tensor], weakref.ref[Tensor], tuple[Any, ...], Adjacency]] = []
_in_use: weakref.WeakSet[Adjacency] = weakref.WeakSet()


def edges_of_matrix(matrix: Tensor) -> tuple[Adjacency, Tensor | None]:
    """Edges of a float32 CSR matrix, rows the targets, and their weights; ``None`` if all are 1.

    Args:
        matrix: Sparse CSR, shape ``(M, N)``.
    """
    known = _of_matrices.get(id(matrix))
    if known is None or known[0]() is not matrix:
        with torch.inference_mode(False):
            edges = Adjacency.from_csr(matrix.crow_indices(), matrix.col_indices(), matrix.size(1))
        key = id(matrix)
        known = (weakref.ref(matrix, lambda _: _of_matrices.pop(key, None)), edges)
        _of_matrices[key] = known
    values = matrix.values()
    ones = not values.requires_grad and bool((values == 1).all())
    return known[1], None if ones else values


_of_matrices: dict[int, tuple[weakref.ref[Tensor], Adjacency]] = {}


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
