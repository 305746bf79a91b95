"""Ordinary features, known to be those of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gnncompress.storage.tensor_types import Handler, VirtualTensor, getter

Again = Callable[[], Tensor]
"""Makes features that were let go once more."""


class NodeRows(torch.Tensor):
    """Ordinary fp32 features of nodes, which send no messages of E × F when a layer asks for them.

    Results that are features of the same nodes stay of this class; all others are plain.

    Attributes:
        again: Makes the same features again. Where it is set, sums of them may wait for later
            steps, see :class:`~lit_gnncompress.storage.deferred.Deferred`.
    """

    handlers: ClassVar[dict[Callable[..., Any], Handler]] = {}
    again: Again | None

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
        handler = cls.handlers.get(func)
        if handler is not None:
            result = handler(*args, **kwargs)
            if result is not NotImplemented:
                return result
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            if type(result) not in (Tensor, NodeRows):
                return result
            rows = next((a for a in args if isinstance(a, NodeRows) and a.dim()), None)
            stays = (
                rows is not None
                and result.dim() > 1
                and result.size(0) == rows.size(0)
                and result.is_floating_point()
                and func not in _PLAIN
            )
            if not stays:
                return plain(result)
            again = again_of(args[0]) if func in _FOLLOWED else None
            if again is not None:
                again = partial(_repeat, func, again, args[1:], kwargs)
            return node_rows(result, again)

    def defer(self, prepare: Callable[[Tensor], Any], num_rows: int, width: int) -> Tensor:
        """Rows that a layer works out of these; where nobody needs them yet, later and in parts.

        Args:
            prepare: Given the plain features, returns what makes rows ``start`` to before ``stop``.
            num_rows: Number of rows.
            width: Number of their columns.
        """
        from lit_gnncompress.storage.deferred import defer  # which knows this class

        return defer(self, prepare, num_rows, width)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return plain(self).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return node_rows(plain(self).__deepcopy__(memo))


_PLAIN = {Tensor.detach, Tensor.numpy, getter("grad"), torch.nn.Parameter}
_FOLLOWED = {F.linear, Tensor.view, Tensor.reshape}  # what happens between a site and its messages


def node_rows(x: Tensor, again: Again | None = None) -> Tensor:
    """``x`` (fp32, ``(N, F)``) as features that are aggregated without messages.

    Args:
        x: The features.
        again: Makes them again, see :class:`NodeRows`.
    """
    rows = x.as_subclass(NodeRows)
    rows.again = again  # type: ignore[attr-defined]
    return rows


def again_of(x: Any) -> Again | None:
    """What makes features again, if anything does."""
    return getattr(x, "again", None)


def plain(x: Tensor) -> Tensor:
    """The same as an ordinary tensor; packed features stay packed."""
    return x.as_subclass(Tensor) if isinstance(x, NodeRows) else x


def _repeat(
    func: Callable[..., Tensor], again: Again, others: tuple[Any, ...], options: Mapping[str, Any]
) -> Tensor:
    return plain(func(again(), *others, **options))
