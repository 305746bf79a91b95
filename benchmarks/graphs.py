"""Graphs that benchmarks of kernels run on."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.data import GraphDataModule

SYNTHETIC = "power law"
_NODES, _EDGES = 200_000, 10_000_000


def edges_of(name: str, root: str | None) -> tuple[Tensor, int]:
    """Edges ``(2, E)``, sorted by target, and the number of nodes of a data set or synthetic graph.

    Sorted, because weights of torch's CSR are: ours need not look up theirs either. The synthetic
    graph has 200,000 nodes and 10 million edges, whose sources follow a power law.
    """
    if name != SYNTHETIC:
        data = GraphDataModule(name, root=root).data
        return _by_target(data.edge_index), int(data.num_nodes)
    generator = torch.Generator().manual_seed(0)
    popular = torch.rand(_EDGES, generator=generator).pow(3).mul(_NODES).long()
    shuffle = torch.randperm(_NODES, generator=generator)
    target = torch.randint(_NODES, (_EDGES,), generator=generator)
    return _by_target(torch.stack([shuffle[popular], target])), _NODES


def _by_target(edge_index: Tensor) -> Tensor:
    return edge_index[:, edge_index[1].argsort(stable=True)]


def torch_csr(edge_index: Tensor, num_nodes: int, weight: Tensor | None = None) -> Tensor:
    """The transposed adjacency as torch's CSR matrix, rows the targets."""
    values = torch.ones(edge_index.size(1)) if weight is None else weight
    size = (num_nodes, num_nodes)
    return torch.sparse_coo_tensor(edge_index.flip(0), values, size).to_sparse_csr()
