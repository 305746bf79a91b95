"""Vectors of nodes by their neighbourhoods alone: a start for tables of nodes without features."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.embedding.adjacency import Adjacency
from lit_gnncompress.embedding.graph_hash import check_graph
from lit_gnncompress.kernels import aggregate
from lit_gnncompress.kernels.adjacency import Adjacency as Edges


def structural_vectors(
    edge_index: Tensor, num_nodes: int, embedding_dim: int, *, hops: int = 4, seed: int = 0
) -> Tensor:
    """Vectors that are alike where neighbourhoods are, in a few sparse products.

    Random vectors are averaged over neighbours again and again, and the averages of all hops added
    up, each with its columns centred and scaled (Chen et al., "Fast and accurate network embeddings
    via very sparse random projection", CIKM 2019). A table or tensor train that starts from them
    need not learn the graph first::

        TTEmbedding.from_pretrained(vectors, freeze=False, rank=8, order=order)

    Args:
        edge_index: Ends of edges, int64 or int32, shape ``(2, E)``; their direction and how often
            they occur do not matter.
        num_nodes: Number of nodes, ``N``.
        embedding_dim: Width of the vectors, ``D``.
        hops: How often neighbours are averaged, at least 1.
        seed: Of the random vectors.

    Returns:
        float32 of shape ``(N, D)`` with a root mean square of 1, on the CPU. Three such matrices
        are in memory at a time. A node without neighbours has the mean of all, near 0.

    Raises:
        ValueError: What is no graph, ``embedding_dim`` or ``hops`` below 1, or no edge at all.
        IndexError: An edge to a node that is not there.
    """
    check_graph(edge_index, num_nodes)
    for name, value in (("embedding_dim", embedding_dim), ("hops", hops)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    graph = Adjacency.of(edge_index, num_nodes)
    if len(graph.neighbor) == 0:
        raise ValueError("edge_index joins no two nodes: there is no structure to start from.")
    edges = Edges.from_csr(
        torch.from_numpy(graph.start), torch.from_numpy(graph.neighbor), num_nodes
    )
    step = torch.randn(
        num_nodes, embedding_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float32
    )
    total = torch.zeros_like(step)
    for _ in range(hops):
        step = aggregate(step, edges, reduce="mean")
        centred = step - step.mean(dim=0)
        total += centred.div_(centred.square().mean().sqrt().clamp(min=1e-12))
    return total.div_(total.square().mean().sqrt().clamp(min=1e-12))
