"""Whether sorted edges are those of a list."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.adjacency import Adjacency
from lit_gnncompress.kernels.library import define


def same_edges(source: Tensor, target: Tensor, adjacency: Adjacency) -> bool:
    """Whether sorting these edges would give ``adjacency``; quicker, and without memory.

    PyG's layers add self-loops to ``edge_index`` at every call, each for itself.

    Args:
        source: Where edges come from, int64 or int32, shape ``(E,)``.
        target: Where they go, likewise.
        adjacency: Sorted edges, on the same device.
    """
    if source.shape != target.shape or source.shape != adjacency.col.shape:
        return False
    rowptr, col, perm = adjacency.rowptr, adjacency.col, adjacency.perm
    return bool(_same_edges(source, target, rowptr, col, perm))


def _fake(
    source: Tensor, target: Tensor, rowptr: Tensor, col: Tensor, perm: Tensor | None
) -> Tensor:
    return source.new_empty((), dtype=torch.bool)


_same_edges = define(
    "same_edges(Tensor source, Tensor target, Tensor rowptr, Tensor col, Tensor? perm) -> Tensor",
    _fake,
    folders={"CUDA": "reference"},
)
