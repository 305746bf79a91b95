"""Message passing without messages: what PyG gathers and scatters, done by one kernel.

PyG's layers gather the features of each edge's source (``index_select``), weigh them, and add them
up at the targets (``scatter_add_``), which builds matrices of E × F. Here the gathered rows are a
promise (:class:`EdgeRows`), the sum of a promise is another
(:class:`~lit_gnncompress.storage.deferred.Aggregated`), and only that is worked out, edge by edge,
by :func:`lit_gnncompress.kernels.aggregate`. The layers notice nothing: they are given
:class:`~lit_gnncompress.storage.node_rows.NodeRows` or a packed tensor instead of a plain one.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from lit_gnncompress.storage.deferred import Aggregated
from lit_gnncompress.storage.edges import adjacency_of, edges_of_matrix
from lit_gnncompress.storage.node_rows import Again, NodeRows, again_of, plain
from lit_gnncompress.storage.tensor_types import VirtualTensor, getter, handles


@handles(NodeRows, Tensor.index_select, torch._C._VariableFunctions.index_select)
def _index_select(x: Any, dim: int, index: Tensor) -> Any:
    if not isinstance(x, NodeRows) or x.dtype != torch.float32 or not _is_rows(x, dim):
        return NotImplemented
    return EdgeRows(plain(x), index, again=again_of(x))


def _is_rows(x: Tensor, dim: int) -> bool:
    return x.dim() > 1 and dim in (0, -x.dim())


@handles(NodeRows, torch.sparse.mm, torch.mm, torch.matmul, Tensor.matmul, Tensor.__matmul__)
def sparse_product(matrix: Any, x: Any, reduce: str = "sum") -> Any:
    """The product of a sparse CSR matrix with plain or packed features."""
    is_csr = isinstance(matrix, Tensor) and matrix.layout == torch.sparse_csr
    if not is_csr or not isinstance(x, (NodeRows, VirtualTensor)) or x.dtype != torch.float32:
        return NotImplemented
    if matrix.dtype != torch.float32 or reduce not in ("sum", "mean", "max"):
        return NotImplemented
    adjacency, weight = edges_of_matrix(matrix)
    return Aggregated(plain(x), adjacency, weight, reduce, again_of(x))


class EdgeRows(VirtualTensor):
    """``source.index_select(0, index)``, weighted, but not worked out.

    Args:
        source: Plain features ``(N, F)`` or ``(N, H, C)``, or a packed tensor.
        index: Row of each edge, int64 of shape ``(E,)``.
        weight: Factor of each edge ``(E,)``, or of each edge and head ``(E, H)``.
        again: Makes ``source`` again, see :class:`~lit_gnncompress.storage.node_rows.NodeRows`.
    """

    source: Tensor
    row_of_edge: Tensor
    weight: Tensor | None
    again: Again | None

    @staticmethod
    def __new__(
        cls,
        source: Tensor,
        index: Tensor,
        weight: Tensor | None = None,
        again: Again | None = None,
    ) -> EdgeRows:
        """A promise of shape ``(E, F)`` or ``(E, H, C)``."""
        shape = (index.size(0), *source.shape[1:])
        self = cast(EdgeRows, VirtualTensor.__new__(cls, shape, source.device))
        self.source, self.weight, self.again = source, weight, again
        self.row_of_edge = index
        return self

    def materialize(self) -> Tensor:
        """The rows, E × F."""
        if isinstance(self.source, VirtualTensor):
            rows = self.source.gather_rows(self.row_of_edge)  # type: ignore[attr-defined]
        else:
            rows = self.source.index_select(0, self.row_of_edge)
        if self.weight is None:
            return rows
        return rows * self.weight.view(*self.weight.shape, *[1] * (rows.dim() - self.weight.dim()))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.materialize().__reduce_ex__(protocol)


@handles(EdgeRows, getter("requires_grad"))
def _edge_rows_require_grad(rows: EdgeRows) -> bool:
    return rows.source.requires_grad or (rows.weight is not None and rows.weight.requires_grad)


@handles(EdgeRows, Tensor.mul, torch.mul, Tensor.__mul__, Tensor.__rmul__)
def _weigh(a: Any, b: Any) -> Any:
    rows, factor = (a, b) if isinstance(a, EdgeRows) else (b, a)
    if not isinstance(factor, Tensor) or type(factor) not in (Tensor, torch.nn.Parameter):
        return NotImplemented
    by_edge = factor.dim() == rows.dim() and factor.size(0) == rows.size(0)
    if not by_edge or factor.size(-1) != 1 or factor.dtype != torch.float32:
        return NotImplemented
    weight = factor.squeeze(-1)
    if weight.dim() > 1 and weight.size(1) not in (1, rows.size(1)):
        return NotImplemented
    weight = weight.squeeze(1) if weight.dim() > 1 and weight.size(1) == 1 else weight
    if rows.weight is not None:
        wide = max(weight.dim(), rows.weight.dim())
        weight, other = (w.view(*w.shape, *[1] * (wide - w.dim())) for w in (weight, rows.weight))
        weight = weight * other
    return EdgeRows(rows.source, rows.row_of_edge, weight, rows.again)


@handles(EdgeRows, Tensor.new_zeros)
def _new_zeros(rows: EdgeRows, *size: Any, **options: Any) -> Tensor:
    shape = torch.Size(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
    if shape[1:] == rows.shape[1:] and not options:
        return _Zeros(shape, rows.device)
    return torch.empty(0, device=rows.device, dtype=torch.float32).new_zeros(shape, **options)


@handles(EdgeRows, Tensor.new_ones)
def _new_ones(rows: EdgeRows, *size: Any, **options: Any) -> Tensor:
    return torch.empty(0, device=rows.device, dtype=torch.float32).new_ones(*size, **options)


@handles(EdgeRows, Tensor.expand_as)
def _expand_as(index: Any, rows: Any) -> Any:
    return index.expand(rows.shape) if type(index) is Tensor else NotImplemented


class _Zeros(VirtualTensor):
    """The zeros that PyG scatters edges into."""

    def materialize(self) -> Tensor:
        return torch.zeros(self.shape, device=self.device, dtype=torch.float32)


@handles(_Zeros, Tensor.scatter_add_)
def _scatter_add(zeros: Any, dim: int, index: Tensor, src: Any) -> Any:
    return _scatter(zeros, dim, index, src, "sum")


@handles(_Zeros, Tensor.scatter_reduce_)
def _scatter_reduce(
    zeros: Any, dim: int, index: Tensor, src: Any, reduce: str, *, include_self: bool = True
) -> Any:
    if include_self or reduce != "amax":
        return NotImplemented
    return _scatter(zeros, dim, index, src, "max")


def _scatter(zeros: Any, dim: int, index: Tensor, src: Any, reduce: str) -> Any:
    if not isinstance(zeros, _Zeros) or not isinstance(src, EdgeRows) or not _is_rows(src, dim):
        return NotImplemented
    target = index
    while target.dim() > 1:  # it is spread over the columns
        target = target.select(-1, 0)
    adjacency = adjacency_of(src.row_of_edge, target, src.source.size(0), zeros.size(0))
    return Aggregated(src.source, adjacency, src.weight, reduce, src.again)
