"""LightGCN's layer without messages, and the weighted adjacency that it reads."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import LGConv
from torch_geometric.typing import Adj

from lit_gnncompress.kept import kept
from lit_gnncompress.kernels import Adjacency, aggregate


class LightGraphConv(LGConv):
    """PyG's ``LGConv``, which adds up float32 rows by one kernel where edges are a CSR matrix."""

    def message_and_aggregate(self, adj_t: Adj, x: Tensor) -> Tensor:
        """The product of the adjacency, a row for each target, with the features."""
        is_csr = isinstance(adj_t, Tensor) and adj_t.layout == torch.sparse_csr
        is_plain = type(x) in (Tensor, torch.nn.Parameter)  # packed features have their own ways
        if not (is_csr and is_plain and x.dtype == adj_t.dtype == torch.float32):
            return super().message_and_aggregate(adj_t, x)
        adjacency = kept(adj_t, ("edges of a layer's matrix",), lambda: _edges(adj_t))
        return aggregate(x, adjacency, adj_t.values())


def _edges(matrix: Tensor) -> Adjacency:
    return Adjacency.from_csr(matrix.crow_indices(), matrix.col_indices(), matrix.size(1))


def symmetric_adjacency(edge_index: Tensor, num_nodes: int) -> Tensor:
    r"""The matrix :math:`D^{-1/2} A D^{-1/2}`; worked out once while ``edge_index`` lives.

    Args:
        edge_index: Edges, both ways, int64 of shape ``(2, E)``.
        num_nodes: Number of nodes.

    Returns:
        Sparse CSR, float32, ``(num_nodes, num_nodes)``, a row for each target.

    Raises:
        ValueError: If ``edge_index`` has another shape or dtype.
        IndexError: If an end of an edge is no node.
    """
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"edge_index must have shape (2, E), got {tuple(edge_index.shape)}")

    def make() -> Tensor:
        source, target = edge_index
        edges = Adjacency.from_edge_index(source, target, num_nodes, num_nodes)
        scale = edges.degrees.clamp(min=1).float().rsqrt()
        row = torch.arange(num_nodes, device=source.device).repeat_interleave(edges.degrees)
        return _csr(edges.rowptr, edges.col.long(), scale[row] * scale[edges.col])

    return kept(edge_index, ("symmetric adjacency", num_nodes), make)


def _csr(rowptr: Tensor, col: Tensor, values: Tensor) -> Tensor:
    size: Any = (rowptr.size(0) - 1, rowptr.size(0) - 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ss]parse.*")  # CSR is "in beta"
        return torch.sparse_csr_tensor(rowptr, col, values, size, check_invariants=False)
