"""Sums over edges that wait until it is known what they are needed for."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gnncompress.kernels import Adjacency, aggregate
from lit_gnncompress.storage.edges import edges_into
from lit_gnncompress.storage.node_rows import Again, again_of, node_rows, plain
from lit_gnncompress.storage.scaled import Scaled, add_scaled
from lit_gnncompress.storage.tensor_types import VirtualTensor, getter, handles

Step = tuple[Callable[..., Tensor], tuple[Any, ...], dict[str, Any]]


class Deferred(VirtualTensor):
    """What a layer makes of its input at each target, worked out when it is used.

    Features that are about to be quantized are made a block of rows at a time, with bias and
    activation, and their sources are let go afterwards. That is so only where a site is known to
    come (``again`` is set): what waits for long would see weights change.

    Args:
        source: Features ``(N, F)`` or ``(N, H, C)``, plain or packed.
        num_rows: Number of targets, ``M``.
        width: Shape of a target's row.
        again: Makes ``source`` again; bias and activation wait only with it.
        steps: What is done to each row afterwards: function, arguments that follow the row's,
            keywords.
    """

    again: Again | None
    steps: tuple[Step, ...]
    _source: Tensor | None
    _result: Tensor | None
    _num_rows: int
    _with_grad: bool

    @staticmethod
    def __new__(
        cls,
        source: Tensor,
        num_rows: int,
        width: tuple[int, ...],
        again: Again | None = None,
        steps: tuple[Step, ...] = (),
    ) -> Deferred:
        """A promise of shape ``(M, *width)``."""
        self = cast(Deferred, VirtualTensor.__new__(cls, (num_rows, *width), source.device))
        self._source, self.again, self.steps, self._result = source, again, steps, None
        self._num_rows, self._with_grad = num_rows, torch.is_grad_enabled()
        return self

    @property
    def source(self) -> Tensor:
        """The features, made again where they were let go."""
        if self._source is None:
            assert self.again is not None
            self._source = self.again()
        return self._source

    def release(self) -> None:
        """Lets the source go, if it can be made again: the rows have been used."""
        if self.again is not None:
            self._source = None

    def materialize(self) -> Tensor:
        """All rows; worked out once."""
        if self._result is None:
            self._result = node_rows(self.rows(0, self._num_rows))
        return self._result

    def rows(self, start: int, stop: int) -> Tensor:
        """The rows from ``start`` to before ``stop``."""
        with torch.set_grad_enabled(self._with_grad):
            out = self.first(start, stop)
            for function, others, options in self.steps:
                if function is add_scaled:
                    others = (*others, start)
                elif stop - start < self._num_rows:
                    others = tuple(o[start:stop] if self._by_row(o) else o for o in others)
                if not self._with_grad:  # nobody else knows of these rows yet
                    function = _IN_PLACE.get(function, function)
                out = function(out, *others, **options)
        return out

    def usual_steps(self) -> tuple[Tensor | None, Tensor | None, str] | None:
        """A bias, rows that are added, and the activation; ``None`` if more is done."""
        steps = list(self.steps)
        added: list[Tensor | None] = []
        for shape in (self.shape[1:], self.shape):
            other = steps[0][1][0] if steps and steps[0][0] is torch.add else None
            if isinstance(other, Tensor) and (other.shape, other.dtype) == (shape, torch.float32):
                added.append(plain(other))
                steps.pop(0)
            else:
                added.append(None)
        activation = _activation_of(steps.pop(0)) if steps else "none"
        return None if steps or activation is None else (added[0], added[1], activation)

    @abstractmethod
    def first(self, start: int, stop: int) -> Tensor:
        """The rows before all steps."""

    @abstractmethod
    def _with_steps(self, steps: tuple[Step, ...], width: tuple[int, ...]) -> Deferred:
        """The same with other steps."""

    def then(
        self,
        function: Callable[..., Tensor],
        *others: Any,
        width: tuple[int, ...] | None = None,
        **options: Any,
    ) -> Deferred:
        """The same with one more step for each row."""
        steps = (*self.steps, (function, others, options))
        return self._with_steps(steps, tuple(self.shape[1:] if width is None else width))

    def _by_row(self, operand: Any) -> bool:
        """Whether an operand has a row, or a number, for each row."""
        is_matrix = isinstance(operand, Tensor) and operand.dim() > 1
        return is_matrix and operand.size(0) == self._num_rows > 1

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.materialize().__reduce_ex__(protocol)


class Aggregated(Deferred):
    """The sum, mean or maximum over each target's edges.

    A linear layer that narrows the features goes before the sum: GraphSAGE's.
    """

    adjacency: Adjacency
    weight: Tensor | None
    reduce: str

    @staticmethod
    def __new__(
        cls,
        source: Tensor,
        adjacency: Adjacency,
        weight: Tensor | None = None,
        reduce: str = "sum",
        again: Again | None = None,
        steps: tuple[Step, ...] = (),
        width: tuple[int, ...] | None = None,
    ) -> Aggregated:
        """A promise; ``weight`` is of edges ``(E,)``, or of edges and heads ``(E, H)``."""
        width = tuple(source.shape[1:]) if width is None else width
        new = Deferred.__new__(cls, source, adjacency.num_targets, width, again, steps)
        self = cast(Aggregated, new)
        self.adjacency, self.weight, self.reduce = adjacency, weight, reduce
        return self

    def first(self, start: int, stop: int) -> Tensor:
        """The rows before all steps."""
        adjacency, weight = self.adjacency, self.weight
        if stop - start < self._num_rows:
            adjacency, weight = edges_into(adjacency, start, stop, weight)
        return aggregate_rows(self.source, adjacency, weight, self.reduce)

    def _with_steps(self, steps: tuple[Step, ...], width: tuple[int, ...]) -> Aggregated:
        return Aggregated(
            self.source, self.adjacency, self.weight, self.reduce, self.again, steps, width
        )


Rows = Callable[[int, int], Tensor]


class Computed(Deferred):
    """Rows of a function that a layer prepares: ``prepare(source)(start, stop)``."""

    prepare: Callable[[Tensor], Rows]
    _prepared: Rows | None

    @staticmethod
    def __new__(
        cls,
        prepare: Callable[[Tensor], Rows],
        source: Tensor,
        num_rows: int,
        width: tuple[int, ...],
        again: Again | None = None,
        steps: tuple[Step, ...] = (),
    ) -> Computed:
        """A promise of shape ``(num_rows, *width)``."""
        self = cast(Computed, Deferred.__new__(cls, source, num_rows, width, again, steps))
        self.prepare, self._prepared = prepare, None
        return self

    def release(self) -> None:
        """Lets the source go, and what was prepared of it."""
        super().release()
        self._prepared = None

    def first(self, start: int, stop: int) -> Tensor:
        """The rows before all steps."""
        if self._prepared is None:
            self._prepared = self.prepare(self.source)
        return self._prepared(start, stop)

    def _with_steps(self, steps: tuple[Step, ...], width: tuple[int, ...]) -> Computed:
        return Computed(self.prepare, self.source, self._num_rows, width, self.again, steps)


def defer(rows: Tensor, prepare: Callable[[Tensor], Rows], num_rows: int, width: int) -> Tensor:
    """``prepare(rows)(0, num_rows)``, later and in parts if ``rows`` can wait."""
    again = again_of(rows)
    if again is None:
        return prepare(plain(rows))(0, num_rows)
    return Computed(prepare, plain(rows), num_rows, (width,), again)


def aggregate_rows(
    source: Tensor, adjacency: Adjacency, weight: Tensor | None, reduce: str
) -> Tensor:
    """Sends rows of plain or packed features along edges, heads side by side."""
    if isinstance(source, VirtualTensor):
        return source.aggregate_rows(adjacency, weight, reduce)  # type: ignore[attr-defined]
    out = aggregate(source.flatten(1), adjacency, weight, reduce)
    return out.view(-1, *source.shape[1:])


# --- what may wait ------------------------------------------------------------------------------


@handles(Deferred, getter("requires_grad"))
def _require_grad(rows: Deferred) -> bool:
    operands = [other for _, others, _ in rows.steps for other in others]
    operands += [rows.source, getattr(rows, "weight", None)]
    return rows._with_grad and any(o.requires_grad for o in operands if isinstance(o, Tensor))


def _waits(rows: Any, operand: Any = 0) -> bool:
    """Whether the rows may be combined with an operand one by one, and later."""
    if not isinstance(rows, Deferred) or rows._result is not None:
        return False
    if not isinstance(operand, Tensor):
        return isinstance(operand, (int, float))
    if isinstance(operand, VirtualTensor):
        return False
    if torch.promote_types(operand.dtype, rows.dtype) != rows.dtype:
        return False  # the sum is of another type than the rows
    shape, whole = operand.shape, rows.shape
    if len(shape) not in (0, 1, len(whole)):
        return False
    ends = zip(reversed(shape), reversed(whole), strict=False)
    return all(own in (1, other) for own, other in ends)


@handles(Deferred, Tensor.expand_as)
def _expand_as(value: Any, rows: Any) -> Any:
    return value.expand(rows.shape) if type(value) is Tensor else NotImplemented


@handles(Deferred, Tensor.div, torch.div, Tensor.__truediv__)
def _divide(rows: Any, divisor: Any) -> Any:
    # A mean's division: its divisor counts edges, and is no weight that could change.
    return rows.then(torch.div, divisor) if _waits(rows, divisor) else NotImplemented


@handles(Scaled, Tensor.add, torch.add, Tensor.__add__, Tensor.__radd__)
@handles(Deferred, Tensor.add, torch.add, Tensor.__add__, Tensor.__radd__)
def _add(a: Any, b: Any, *, alpha: float = 1) -> Any:
    rows, other = (a, b) if isinstance(a, Deferred) else (b, a)
    if not isinstance(rows, Deferred) or alpha != 1:
        return NotImplemented
    if isinstance(other, Scaled) and other.waits and other.shape == rows.shape and _waits(rows):
        return rows.then(add_scaled, other)  # for the linear layer that comes next, GIN's
    if rows.again is None or not _waits(rows, other):
        return NotImplemented
    return rows.then(torch.add, other)


def _activation_of(step: Step) -> str | None:
    """What kernels call an activation, if they know it."""
    function, others, options = step
    if _IN_PLACE.get(function) is torch.relu_:
        return "relu"
    return "elu" if function is F.elu and not others and options in ({}, {"alpha": 1.0}) else None


def _activation(function: Callable[..., Tensor]) -> Callable[..., Any]:
    def run(rows: Any, *others: Any, inplace: bool = False, **options: Any) -> Any:
        if rows.again is None or inplace or not _waits(rows):
            return NotImplemented
        return rows.then(function, *others, **options)

    return run


_IN_PLACE: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    torch.add: Tensor.add_,
    torch.div: Tensor.div_,
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), torch.relu_),
    F.elu: F.elu_,
    F.leaky_relu: F.leaky_relu_,
}
"""The steps that most layers take, each of which would make another block of rows."""

for _function in (
    F.relu, torch.relu, Tensor.relu, F.elu, F.leaky_relu, F.gelu, F.silu, F.tanh,
    torch.tanh, Tensor.tanh, F.sigmoid, torch.sigmoid, Tensor.sigmoid,
):  # fmt: skip
    Deferred.handlers[_function] = _activation(_function)


@handles(Deferred, F.dropout)
def _dropout(rows: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return NotImplemented if training and p > 0 else rows


@handles(Deferred, Tensor.view, Tensor.reshape, torch.reshape)
def _join_heads(rows: Any, *shape: Any) -> Any:
    shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    joined = math.prod(rows.shape[1:])
    joins = tuple(shape) in ((-1, joined), (rows.size(0), joined))
    if rows.again is None or not joins or not _waits(rows):
        return NotImplemented
    return rows.then(torch.flatten, 1, width=(joined,))


@handles(Deferred, Tensor.mean, torch.mean)
def _average_heads(rows: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if rows.again is None or rows.dim() != 3 or dim != 1 or keepdim or not _waits(rows):
        return NotImplemented
    return rows.then(torch.mean, 1, width=rows.shape[2:])


@handles(Aggregated, F.linear)
def _linear(rows: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    # A linear layer and a weighted sum may change places; the narrower features travel.
    if not isinstance(rows, Aggregated) or rows.dim() != 2 or rows._result is not None:
        return NotImplemented
    linear = all(
        f is add_scaled or (f is torch.div and not _by_column(o[0], rows)) for f, o, _ in rows.steps
    )
    by_head = rows.weight is not None and rows.weight.dim() > 1
    if rows.reduce == "max" or not linear or by_head or weight.size(0) >= weight.size(1):
        return NotImplemented
    if type(rows.source) is Tensor and torch.is_autocast_enabled(rows.device.type):
        return NotImplemented  # sums are of float32
    narrow = F.linear(rows.source, weight)
    out: Deferred = Aggregated(
        plain(narrow), rows.adjacency, rows.weight, rows.reduce, again_of(narrow)
    )
    for function, others, options in rows.steps:
        if function is add_scaled:
            [scaled] = others
            same = scaled.source is rows.source
            own = plain(narrow if same else F.linear(scaled.source, weight))
            out = out.then(torch.add, scaled.factor * own)
            continue
        columns = [o[:, :1] if isinstance(o, Tensor) and o.dim() == 2 else o for o in others]
        out = out.then(function, *columns, **options)
    if bias is not None:
        out = out.then(torch.add, bias)
    return out if out.again is not None else out.materialize()


def _by_column(value: Any, rows: Tensor) -> bool:
    """Whether an operand differs from column to column."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return False
    return value.size(-1) != 1 and (value.dim() != rows.dim() or value.stride(-1) != 0)
