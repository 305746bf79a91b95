"""Message passing without messages: what PyG gathers and scatters, done by one kernel.

PyG's layers gather the features of each edge's source (``index_select``), weigh them, and add them
up at the targets (``scatter_add_``), which builds matrices of E × F. Here the gathered rows are a
promise (:class:`EdgeRows`), the sum of a promise is another (:class:`Aggregated`), and only that
is worked out, edge by edge, by :func:`lit_gnncompress.kernels.aggregate`. The layers notice
nothing: they are given :class:`NodeRows` or a packed tensor instead of a plain one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gnncompress.kernels import Adjacency, aggregate
from lit_gnncompress.storage.edges import adjacency_of, edges_into, edges_of_matrix
from lit_gnncompress.storage.tensor_types import VirtualTensor, handles


class RowSource(Protocol):
    """Rows that know how to send themselves along edges."""

    def aggregate_rows(self, adjacency: Adjacency, weight: Tensor | None, reduce: str) -> Tensor:
        """Sums the rows of each target's edges."""


# --- dense rows ---------------------------------------------------------------------------------


class NodeRows(torch.Tensor):
    """Ordinary fp32 features of nodes, which send no messages of E × F when a layer asks for them.

    Results that are features of the same nodes stay of this class; all others are plain.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if any(issubclass(other, VirtualTensor) for other in types):
            return NotImplemented  # they know how to deal with us
        handler = _NODE_ROWS.get(func)
        if handler is not None:
            result = handler(*args, **kwargs)
            if result is not NotImplemented:
                return result
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            is_rows = (
                type(result) in (Tensor, NodeRows)
                and result.dim() > 1
                and result.is_floating_point()
                and func not in _PLAIN
            )
            if not is_rows:
                return _plain(result) if isinstance(result, NodeRows) else result
            rows = next((a for a in args if isinstance(a, NodeRows) and a.dim()), None)
            same = rows is not None and result.size(0) == rows.size(0)
            return node_rows(result, _defers(rows)) if same else _plain(result)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain(self).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return node_rows(_plain(self).__deepcopy__(memo))


def node_rows(x: Tensor, defers: bool = False) -> Tensor:
    """``x`` (fp32, ``(N, F)``) as features that are aggregated without messages.

    Args:
        x: The features.
        defers: Whether their sums may wait for later steps, see :class:`Aggregated`.
    """
    rows = x.as_subclass(NodeRows)
    rows.defers = defers  # type: ignore[attr-defined]
    return rows


def _defers(x: Any) -> bool:
    return getattr(x, "defers", False)


def _plain(x: Tensor) -> Tensor:
    return x.as_subclass(Tensor)


_PLAIN = {Tensor.detach, Tensor.numpy, Tensor.grad.__get__, torch.nn.Parameter}
_NODE_ROWS: dict[Callable[..., Any], Callable[..., Any]] = {}


def _select_dense(x: Any, dim: int, index: Tensor) -> Any:
    if not isinstance(x, NodeRows) or x.dtype != torch.float32 or not _is_rows(x, dim):
        return NotImplemented
    return EdgeRows(_plain(x), index, defers=_defers(x))


def _is_rows(x: Tensor, dim: int) -> bool:
    return x.dim() > 1 and dim in (0, -x.dim())


for _function in (Tensor.index_select, torch._C._VariableFunctions.index_select):
    _NODE_ROWS[_function] = _select_dense


def sparse_product(matrix: Any, x: Any, reduce: str = "sum") -> Any:
    """The product of a sparse CSR matrix with plain or packed features."""
    is_csr = isinstance(matrix, Tensor) and matrix.layout == torch.sparse_csr
    if not is_csr or not isinstance(x, (NodeRows, VirtualTensor)) or x.dtype != torch.float32:
        return NotImplemented
    if matrix.dtype != torch.float32 or reduce not in ("sum", "mean", "max"):
        return NotImplemented
    adjacency, weight = edges_of_matrix(matrix)
    plain = _plain(x) if isinstance(x, NodeRows) else x
    return Aggregated(plain, adjacency, weight, reduce, defers=_defers(x))


for _function in (torch.sparse.mm, torch.mm, torch.matmul, Tensor.matmul, Tensor.__matmul__):
    _NODE_ROWS[_function] = sparse_product


# --- rows of edges ------------------------------------------------------------------------------


class EdgeRows(VirtualTensor):
    """``source.index_select(0, index)``, weighted, but not worked out.

    Args:
        source: Plain features ``(N, F)`` or ``(N, H, C)``, or a packed tensor.
        index: Row of each edge, int64 of shape ``(E,)``.
        weight: Factor of each edge ``(E,)``, or of each edge and head ``(E, H)``.
        defers: Whether their sums may wait for later steps.
    """

    source: Tensor
    index: Tensor
    weight: Tensor | None
    defers: bool

    @staticmethod
    def __new__(
        cls, source: Tensor, index: Tensor, weight: Tensor | None = None, defers: bool = False
    ) -> EdgeRows:
        """A promise of shape ``(E, F)`` or ``(E, H, C)``."""
        shape = (index.size(0), *source.shape[1:])
        self = cast(EdgeRows, VirtualTensor.__new__(cls, shape, source.device))
        self.source, self.index, self.weight, self.defers = source, index, weight, defers
        return self

    def materialize(self) -> Tensor:
        """The rows, E × F."""
        if isinstance(self.source, VirtualTensor):
            rows = self.source.gather_rows(self.index)  # type: ignore[attr-defined]
        else:
            rows = self.source.index_select(0, self.index)
        if self.weight is None:
            return rows
        return rows * self.weight.view(*self.weight.shape, *[1] * (rows.dim() - self.weight.dim()))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.materialize().__reduce_ex__(protocol)


@handles(EdgeRows, Tensor.requires_grad.__get__)
def _edge_rows_require_grad(rows: EdgeRows) -> bool:
    return _requires_grad(rows.source, rows.weight)


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
    return EdgeRows(rows.source, rows.index, weight, rows.defers)


@handles(EdgeRows, Tensor.new_zeros)
def _new_zeros(rows: EdgeRows, *size: Any, **options: Any) -> Tensor:
    shape = torch.Size(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
    if shape[1:] == rows.shape[1:] and not options:
        return _Zeros(shape, rows.device)
    options = {"dtype": torch.float32, "device": rows.device} | options
    return torch.zeros(shape, **options)


@handles(EdgeRows, Tensor.new_ones)
def _new_ones(rows: EdgeRows, *size: Any, **options: Any) -> Tensor:
    shape = torch.Size(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
    return torch.ones(shape, **({"dtype": torch.float32, "device": rows.device} | options))


@handles(EdgeRows, Tensor.expand_as)
def _expand_as(index: Any, rows: Any) -> Any:
    return index.expand(rows.shape) if type(index) is Tensor else NotImplemented


class _Zeros(VirtualTensor):
    """The zeros that PyG scatters edges into."""

    def materialize(self) -> Tensor:
        return torch.zeros(self.shape, device=self.device)


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
    target = index[(slice(None), *[0] * (index.dim() - 1))]
    adjacency = adjacency_of(src.index, target, src.source.size(0), zeros.size(0))
    return Aggregated(src.source, adjacency, src.weight, reduce, defers=src.defers)


# --- sums at the targets ------------------------------------------------------------------------

Epilogue = tuple[Callable[..., Tensor], tuple[Any, ...], dict[str, Any]]


class Aggregated(VirtualTensor):
    """The sum, mean or maximum over each target's edges, worked out when it is used.

    Two things are done better late: a linear layer that narrows the features goes before a sum
    (GraphSAGE's), and features that are about to be quantized are made a block of rows at a time,
    with bias and activation. The latter only where a site is known to come (``defers``): what
    waits for long would see weights change.

    Args:
        source: Plain features ``(N, F)`` or ``(N, H, C)``, or a packed tensor.
        adjacency: The edges.
        weight: Factor of each edge ``(E,)``, or of each edge and head ``(E, H)``.
        reduce: ``"sum"``, ``"mean"`` or ``"max"``.
        steps: What is done to each row afterwards: function, arguments that follow the row's,
            keywords.
        width: Shape of a row after the steps, where they change it.
        defers: Whether bias and activation may become steps.
    """

    source: Tensor
    adjacency: Adjacency
    weight: Tensor | None
    reduce: str
    steps: tuple[Epilogue, ...]
    defers: bool
    _result: Tensor | None
    _with_grad: bool

    @staticmethod
    def __new__(
        cls,
        source: Tensor,
        adjacency: Adjacency,
        weight: Tensor | None = None,
        reduce: str = "sum",
        steps: tuple[Epilogue, ...] = (),
        width: tuple[int, ...] | None = None,
        defers: bool = False,
    ) -> Aggregated:
        """A promise of shape ``(M, F)`` or ``(M, H, C)``."""
        shape = (adjacency.num_targets, *(source.shape[1:] if width is None else width))
        self = cast(Aggregated, VirtualTensor.__new__(cls, shape, source.device))
        self.source, self.adjacency, self.weight = source, adjacency, weight
        self.reduce, self.steps, self.defers, self._result = reduce, steps, defers, None
        self._with_grad = torch.is_grad_enabled()
        return self

    def materialize(self) -> Tensor:
        """All rows, M × F; worked out once."""
        if self._result is None:
            with torch.set_grad_enabled(self._with_grad):
                self._result = node_rows(self.rows(0, self.size(0)), self.defers)
        return self._result

    def rows(self, start: int, stop: int) -> Tensor:
        """The rows from ``start`` to before ``stop``."""
        adjacency, weight = self.adjacency, self.weight
        part = stop - start < self.size(0)
        if part:
            adjacency, weight = edges_into(adjacency, start, stop, weight)
        out = aggregate_rows(self.source, adjacency, weight, self.reduce)
        for function, others, options in self.steps:
            args = [o[start:stop] if part and _by_row(o, self) else o for o in others]
            out = function(out, *args, **options)
        return out

    def then(
        self,
        function: Callable[..., Tensor],
        *others: Any,
        width: tuple[int, ...] | None = None,
        **options: Any,
    ) -> Aggregated:
        """The same with one more step for each row."""
        steps = (*self.steps, (function, others, options))
        width = self.shape[1:] if width is None else width
        return Aggregated(
            self.source, self.adjacency, self.weight, self.reduce, steps, tuple(width), self.defers
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.materialize().__reduce_ex__(protocol)


def aggregate_rows(
    source: Tensor, adjacency: Adjacency, weight: Tensor | None, reduce: str
) -> Tensor:
    """Sends rows of plain or packed features along edges, heads side by side."""
    if isinstance(source, VirtualTensor):
        return source.aggregate_rows(adjacency, weight, reduce)  # type: ignore[attr-defined]
    out = aggregate(source.flatten(1), adjacency, weight, reduce)
    return out.view(-1, *source.shape[1:])


def _by_row(value: Any, rows: Tensor) -> bool:
    """Whether an operand has a row, or a number, for each row of the matrix."""
    return isinstance(value, Tensor) and value.dim() > 1 and value.size(0) == rows.size(0)


@handles(Aggregated, Tensor.requires_grad.__get__)
def _aggregated_require_grad(rows: Aggregated) -> bool:
    operands = (other for _, others, _ in rows.steps for other in others)
    return rows._with_grad and _requires_grad(rows.source, rows.weight, *operands)


def _requires_grad(*operands: Any) -> bool:
    return any(value.requires_grad for value in operands if isinstance(value, Tensor))


@handles(Aggregated, F.linear)
def _linear(rows: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    # A linear layer and a weighted sum may change places; the narrower features travel.
    if not isinstance(rows, Aggregated) or rows.dim() != 2 or rows._result is not None:
        return NotImplemented
    scalings = all(f is torch.div and not _by_column(o[0], rows) for f, o, _ in rows.steps)
    by_head = rows.weight is not None and rows.weight.dim() > 1
    if rows.reduce == "max" or not scalings or by_head or weight.size(0) >= weight.size(1):
        return NotImplemented
    narrow = F.linear(rows.source, weight)
    narrow = _plain(narrow) if isinstance(narrow, NodeRows) else narrow
    out = Aggregated(narrow, rows.adjacency, rows.weight, rows.reduce, defers=rows.defers)
    for function, others, options in rows.steps:
        columns = [o.narrow(1, 0, 1) if isinstance(o, Tensor) else o for o in others]
        out = out.then(function, *columns, **options)
    if bias is not None:
        out = out.then(torch.add, bias)
    return out if out.defers else out.materialize()


def _by_column(value: Any, rows: Tensor) -> bool:
    """Whether an operand differs from column to column."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return False
    return value.size(-1) != 1 and (value.dim() != rows.dim() or value.stride(-1) != 0)


@handles(Aggregated, Tensor.expand_as)
def _expand_as_aggregated(value: Any, rows: Any) -> Any:
    return value.expand(rows.shape) if type(value) is Tensor else NotImplemented


@handles(Aggregated, Tensor.div, torch.div, Tensor.__truediv__)
def _divide(rows: Any, divisor: Any) -> Any:
    return rows.then(torch.div, divisor) if _is_step(rows, divisor) else NotImplemented


@handles(Aggregated, Tensor.add, torch.add, Tensor.__add__, Tensor.__radd__)
def _add(a: Any, b: Any, *, alpha: float = 1) -> Any:
    rows, other = (a, b) if isinstance(a, Aggregated) else (b, a)
    if not _is_step(rows, other) or not rows.defers or alpha != 1:
        return NotImplemented
    return rows.then(torch.add, other)


def _is_step(rows: Any, operand: Any) -> bool:
    """Whether the rows may be combined with an operand one by one."""
    if not isinstance(rows, Aggregated) or rows._result is not None:
        return False
    if not isinstance(operand, Tensor):
        return isinstance(operand, (int, float))
    if isinstance(operand, VirtualTensor):
        return False
    spread = torch.broadcast_shapes(operand.shape, rows.shape)
    return spread == rows.shape and (operand.dim() < 2 or operand.size(0) in (1, rows.size(0)))


def _activation(function: Callable[..., Tensor]) -> Callable[..., Any]:
    def run(rows: Any, *others: Any, inplace: bool = False, **options: Any) -> Any:
        if not _is_step(rows, 0) or not rows.defers or inplace:
            return NotImplemented
        return rows.then(function, *others, **options)

    return run


for _function in (
    F.relu, torch.relu, Tensor.relu, F.elu, F.leaky_relu, F.gelu, F.silu, F.tanh,
    torch.tanh, Tensor.tanh, F.sigmoid, torch.sigmoid, Tensor.sigmoid,
):  # fmt: skip
    Aggregated.handlers[_function] = _activation(_function)


@handles(Aggregated, F.dropout)
def _dropout(rows: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return NotImplemented if training and p > 0 else rows


@handles(Aggregated, Tensor.view, Tensor.reshape, torch.reshape)
def _join_heads(rows: Any, *shape: Any) -> Any:
    shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    joined = math.prod(rows.shape[1:])
    joins = tuple(shape) in ((-1, joined), (rows.size(0), joined))
    if not _is_step(rows, 0) or not rows.defers or not joins:
        return NotImplemented
    return rows.then(torch.flatten, 1, width=(joined,))


@handles(Aggregated, Tensor.mean, torch.mean)
def _average_heads(rows: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if not _is_step(rows, 0) or not rows.defers or rows.dim() != 3 or dim != 1 or keepdim:
        return NotImplemented
    return rows.then(torch.mean, 1, width=rows.shape[2:])
