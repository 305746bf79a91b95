"""What tells graphs apart: a fingerprint of nodes and edges."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor


def graph_hash(edge_index: Tensor, num_nodes: int, edge_weight: Tensor | None = None) -> str:
    """Fingerprint of a graph, 128 bits: the same in whichever order its edges come.

    Which way an edge points, how often it occurs and its weight do matter. Good against mistakes,
    not against somebody who looks for a graph of the same fingerprint.

    Args:
        edge_index: Ends of edges, int64 or int32, shape ``(2, E)``.
        num_nodes: Number of nodes.
        edge_weight: Weight of each edge, shape ``(E,)``.

    Returns:
        32 hexadecimal digits.
    """
    source, target = edge_index.detach().cpu().numpy()
    weight = np.empty(0, np.uint64)
    if edge_weight is not None:
        weight = edge_weight.detach().cpu().double().contiguous().numpy().view(np.uint64)
    from lit_gnncompress.embedding.graph_loops import sum_of_mixed

    sums = sum_of_mixed(source, target, weight)
    text = f"{num_nodes} {edge_index.size(1)} {edge_weight is not None} {sums[0]} {sums[1]}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def check_graph(
    edge_index: Tensor, num_nodes: int | tuple[int, int], edge_weight: Tensor | None = None
) -> None:
    """Refuses what is no graph; see :func:`graph_hash`.

    Args:
        edge_index: Ends of edges.
        num_nodes: Number of nodes, or of those that edges begin and end at.
        edge_weight: Weight of each edge.
    """
    if not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or edge_index.size(0) != 2:
        shape = tuple(edge_index.shape) if isinstance(edge_index, Tensor) else type(edge_index)
        raise ValueError(f"edge_index must be a tensor of shape (2, E), got {shape}.")
    if not str(edge_index.dtype).startswith("torch.int"):
        raise ValueError(
            f"edge_index must hold whole numbers, got {edge_index.dtype}: call .long() on it."
        )
    ends = num_nodes if isinstance(num_nodes, tuple) else (num_nodes, num_nodes)
    for end, size in enumerate(ends):
        if not isinstance(size, int) or not 1 <= size < 2**31:
            raise ValueError(f"num_nodes={size} must be a whole number in [1, 2 ** 31).")
        if edge_index.size(1) == 0:
            continue
        low, high = edge_index[end].aminmax()
        if int(low) < 0 or int(high) >= size:
            edge = int(((edge_index[end] < 0) | (edge_index[end] >= size)).nonzero()[0])
            raise IndexError(
                f"edge_index[{end}, {edge}]={int(edge_index[end, edge])} is no node: num_nodes="
                f"{size}, counted from 0."
            )
    if edge_weight is None:
        return
    if edge_weight.shape != edge_index.shape[1:]:
        raise ValueError(
            f"edge_weight has shape {tuple(edge_weight.shape)}, edge_index {edge_index.size(1)} "
            f"edges: give each edge one weight."
        )
    wrong = (~(edge_weight.isfinite() & (edge_weight >= 0))).nonzero()
    if len(wrong):
        edge = int(wrong[0])
        raise ValueError(
            f"edge_weight[{edge}]={float(edge_weight[edge])} must be 0 or more: nodes of large "
            f"weights are kept together."
        )
