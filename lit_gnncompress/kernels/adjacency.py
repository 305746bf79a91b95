"""Edges by target, as aggregations read them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_gnncompress.kernels.sort_edges import INDICES, check_endpoints, check_nodes, sort_edges

REDUCTIONS = ("sum", "mean", "max")


class Adjacency:
    """The edges into every target, checked once.

    A *slot* is a place in ``col``; an *edge* is a place in the order in which the caller gave
    edges, which is the order of edge weights.

    Args:
        rowptr: int64, shape ``(M + 1,)``: the slots of target ``t`` are ``rowptr[t]`` to
            ``rowptr[t + 1] - 1``.
        col: int32, shape ``(E,)``: the source of each slot.
        perm: int32, shape ``(E,)``: the edge of each slot; ``None`` if they are the same.
        num_sources: Number of sources, ``N``.

    The constructor trusts its arguments; :meth:`from_edge_index` and :meth:`from_csr` check them.
    """

    def __init__(self, rowptr: Tensor, col: Tensor, perm: Tensor | None, num_sources: int) -> None:
        self.rowptr = rowptr
        self.col = col
        self.perm = perm
        self.num_sources = num_sources
        self._transposed: Adjacency | None = None

    @classmethod
    def from_edge_index(
        cls, source: Tensor, target: Tensor, num_sources: int, num_targets: int
    ) -> Adjacency:
        """Of a list of edges, in any order: the two rows of PyG's ``edge_index``.

        Args:
            source: Where edges come from, int64 or int32, shape ``(E,)``.
            target: Where they go, int64 or int32, shape ``(E,)``.
            num_sources: Number of sources, ``N``.
            num_targets: Number of targets, ``M``.

        Raises:
            ValueError: Tensors that do not fit each other, or too large for 32-bit places.
            IndexError: An end of an edge that is no node.
        """
        check_endpoints(source, target)
        check_nodes("source", source, num_sources)
        rowptr, col, perm = sort_edges(source, target, num_targets)
        return cls(rowptr, col, perm if perm.size(0) == col.size(0) > 0 else None, num_sources)

    @classmethod
    def from_csr(cls, rowptr: Tensor, col: Tensor, num_sources: int) -> Adjacency:
        """Of compressed rows, a row for each target: PyG's ``adj_t``.

        Args:
            rowptr: Where rows begin in ``col``, int64 or int32, shape ``(M + 1,)``.
            col: Sources, int64 or int32, shape ``(E,)``.
            num_sources: Number of sources, ``N``.

        Raises:
            ValueError: Tensors that do not fit each other, pointers that fall or do not run from 0
                to ``E``.
            IndexError: A source that is no node.
        """
        for name, index in (("rowptr", rowptr), ("col", col)):
            if index.dtype not in INDICES or index.dim() != 1:
                raise ValueError(
                    f"{name} must be int64 or int32 and one-dimensional, got {index.dtype} of "
                    f"shape {tuple(index.shape)}."
                )
        if rowptr.device != col.device:
            raise ValueError(f"rowptr is on {rowptr.device}, col on {col.device}: move one.")
        if col.size(0) >= 2**31:
            raise ValueError(f"{col.size(0)} edges are too many: places of edges have 32 bits.")
        if rowptr.size(0) == 0 or int(rowptr[0]) != 0 or int(rowptr[-1]) != col.size(0):
            ends = f"{int(rowptr[0])} to {int(rowptr[-1])}" if rowptr.size(0) else "nowhere"
            raise ValueError(
                f"rowptr runs from {ends}, but must run from 0 to {col.size(0)}, the number of "
                "edges in col."
            )
        falls = rowptr[1:] < rowptr[:-1]
        if bool(falls.any()):
            row = int(falls.nonzero()[0, 0])
            raise ValueError(
                f"rowptr[{row + 1}]={int(rowptr[row + 1])} is less than rowptr[{row}]="
                f"{int(rowptr[row])}: pointers must not fall."
            )
        check_nodes("source", col, num_sources)
        return cls(rowptr.long().contiguous(), col.int().contiguous(), None, num_sources)

    @property
    def num_targets(self) -> int:
        """Number of targets, ``M``."""
        return self.rowptr.size(0) - 1

    @property
    def num_edges(self) -> int:
        """Number of edges, ``E``."""
        return self.col.size(0)

    @property
    def device(self) -> torch.device:
        """Where the edges are."""
        return self.col.device

    @property
    def degrees(self) -> Tensor:
        """Edges into each target: int64, shape ``(M,)``."""
        return self.rowptr.diff()

    @property
    def transposed(self) -> Adjacency:
        """The same edges from target to source, which gradients follow; worked out once."""
        if self._transposed is None:
            rowptr, col, perm = transpose(self.rowptr, self.col, self.perm, self.num_sources)
            self._transposed = Adjacency(rowptr, col, perm, self.num_targets)
        return self._transposed

    def into(self, start: int, stop: int) -> Adjacency:
        """The edges into targets ``start`` to before ``stop``, numbered by their slots."""
        first, last = int(self.rowptr[start]), int(self.rowptr[stop])
        rowptr = self.rowptr[start : stop + 1] - first
        return Adjacency(rowptr, self.col[first:last], None, self.num_sources)

    def to(self, device: Any) -> Adjacency:
        """The same edges on ``device``."""
        if self.device == torch.device(device):
            return self
        perm = None if self.perm is None else self.perm.to(device)
        moved = Adjacency(self.rowptr.to(device), self.col.to(device), perm, self.num_sources)
        if self._transposed is not None:
            moved._transposed = self._transposed.to(device)
        return moved

    def __repr__(self) -> str:
        return (
            f"Adjacency(num_sources={self.num_sources}, num_targets={self.num_targets}, "
            f"num_edges={self.num_edges}, device={str(self.device)!r})"
        )


def transpose(
    rowptr: Tensor, col: Tensor, perm: Tensor | None, num_sources: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """``rowptr``, ``col`` and ``perm`` of the same edges by source; edges keep their numbers."""
    rowptr_t, col_t, slot = sort_edges(slot_rows(rowptr, col), col, num_sources)
    if slot.size(0) != col.size(0) or slot.size(0) == 0:  # came sorted
        return rowptr_t, col_t, perm
    return rowptr_t, col_t, slot if perm is None else perm.index_select(0, slot)


def slot_rows(rowptr: Tensor, col: Tensor) -> Tensor:
    """The target of each slot: int32, shape ``(E,)``."""
    rows = torch.arange(rowptr.size(0) - 1, dtype=torch.int32, device=rowptr.device)
    return torch.repeat_interleave(rows, rowptr.diff(), output_size=col.size(0))


def check_rows(name: str, x: Tensor, rows: int, adjacency: Adjacency) -> None:
    """Refuses what are not the float32 rows of ``rows`` nodes.

    Raises:
        ValueError: Naming dtype, shape or device.
    """
    if x.dtype != torch.float32 or x.dim() != 2 or x.size(0) != rows:
        raise ValueError(
            f"{name} must be float32 of shape ({rows}, F), a row for each node of {adjacency}, "
            f"got {x.dtype} of shape {tuple(x.shape)}."
        )
    _check_device(name, x, adjacency)


def check_source_rows(name: str, data: Tensor, rows: int, adjacency: Adjacency) -> None:
    """Refuses ``rows`` stored in ``data`` that are not those of the sources.

    Raises:
        ValueError: Naming number or device.
    """
    if rows != adjacency.num_sources:
        raise ValueError(f"{name} stores {rows} rows, but must one for each source of {adjacency}.")
    _check_device(name, data, adjacency)


def check_edge_weight(weight: Tensor | None, width: int, adjacency: Adjacency) -> None:
    """Refuses what are not the weights of edges whose messages have ``width`` columns.

    Raises:
        ValueError: Naming dtype, shape or device.
    """
    if weight is None:
        return
    edges = adjacency.num_edges
    if weight.dtype != torch.float32 or weight.dim() not in (1, 2) or weight.size(0) != edges:
        raise ValueError(
            f"weight must be float32 of shape ({edges},) or ({edges}, H), one for each edge, got "
            f"{weight.dtype} of shape {tuple(weight.shape)}."
        )
    if weight.dim() == 2 and (weight.size(1) == 0 or width % weight.size(1)):
        raise ValueError(
            f"weight has {weight.size(1)} heads, which must divide the {width} columns of a row."
        )
    _check_device("weight", weight, adjacency)


def check_reduce(reduce: str) -> None:
    """Refuses what is no reduction.

    Raises:
        ValueError: Naming it.
    """
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce={reduce!r} is none of {', '.join(REDUCTIONS)}.")


def _check_device(name: str, data: Tensor, adjacency: Adjacency) -> None:
    if data.device != adjacency.device:
        raise ValueError(
            f"{name} is on {data.device}, the edges are on {adjacency.device}: move one of them."
        )
