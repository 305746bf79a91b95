"""A list of edges, in any order, to rows of edges by target."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.library import define

INDICES = (torch.int64, torch.int32)


def sort_edges(source: Tensor, target: Tensor, num_targets: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sorts edges by target, and keeps the order of those of one target.

    Args:
        source: Where edges come from, int64 or int32, shape ``(E,)``, each below ``2 ** 31``.
        target: Where they go, int64 or int32, shape ``(E,)``.
        num_targets: Number of targets, ``M``.

    Returns:
        ``rowptr``, int64, shape ``(M + 1,)``: the slots of target ``t`` are ``rowptr[t]`` to
        ``rowptr[t + 1] - 1``; ``col``, int32, shape ``(E,)``: the source of each slot; ``perm``,
        int32: the edge of each slot, empty where the edges came sorted.

    Raises:
        ValueError: Tensors of another dtype or shape or on two devices, or too many edges for
            32-bit places.
        IndexError: A target below 0 or from ``num_targets`` on.
    """
    check_endpoints(source, target)
    check_nodes("target", target, num_targets)
    return _sort_edges(source, target, num_targets)


def check_endpoints(source: Tensor, target: Tensor) -> None:
    """Refuses what are not the two ends of the same edges.

    Raises:
        ValueError: Naming the end.
    """
    for name, index in (("source", source), ("target", target)):
        if index.dtype not in INDICES or index.dim() != 1:
            raise ValueError(
                f"{name} must be int64 or int32 of shape (E,), got {index.dtype} of shape "
                f"{tuple(index.shape)}."
            )
    if source.size(0) != target.size(0) or source.device != target.device:
        raise ValueError(
            f"source has {source.size(0)} edges on {source.device}, target {target.size(0)} on "
            f"{target.device}: they must be the two ends of the same edges."
        )
    if source.size(0) >= 2**31:
        raise ValueError(f"{source.size(0)} edges are too many: places of edges have 32 bits.")


def check_nodes(name: str, index: Tensor, size: int) -> None:
    """Refuses ends of edges that are no nodes; on a GPU this waits for them.

    Raises:
        IndexError: Naming the first edge of such an end.
        ValueError: A number of nodes that is negative, or does not fit into 32 bits.
    """
    if not 0 <= size < 2**31:
        raise ValueError(f"num_{name}s={size} must lie in [0, 2 ** 31).")
    if index.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = index.aminmax()
    if int(low) < 0 or int(high) >= size:
        edge = int(((index < 0) | (index >= size)).nonzero()[0, 0])
        raise IndexError(
            f"{name}[{edge}]={int(index[edge])} is no node: num_{name}s={size}, counted from 0."
        )


def _fake(source: Tensor, target: Tensor, num_targets: int) -> tuple[Tensor, Tensor, Tensor]:
    edges = source.size(0)
    places = torch.library.get_ctx().new_dynamic_size(min=0)
    return (
        source.new_empty(num_targets + 1, dtype=torch.int64),
        source.new_empty(edges, dtype=torch.int32),
        source.new_empty(places, dtype=torch.int32),
    )


_sort_edges = define(
    "sort_edges(Tensor source, Tensor target, int num_targets) -> (Tensor, Tensor, Tensor)",
    _fake,
    folders={"CUDA": "reference"},
)
