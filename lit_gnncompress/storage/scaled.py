"""Packed features times a number, which are not worked out: GIN's ``(1 + eps) * x``."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gnncompress.storage.node_rows import plain
from lit_gnncompress.storage.tensor_types import VirtualTensor, getter, handles

_BLOCK = 1024  # rows that are dequantized at a time


class Scaled(VirtualTensor):
    """``factor * source``, of the shape of ``source``.

    Args:
        source: Packed features ``(N, F)``.
        factor: A number, or a float32 tensor of one element.
    """

    source: Tensor
    factor: Tensor | float

    @staticmethod
    def __new__(cls, source: Tensor, factor: Tensor | float) -> Scaled:
        """A promise of shape ``(N, F)``."""
        self = cast(Scaled, VirtualTensor.__new__(cls, source.shape, source.device))
        self.source, self.factor = source, factor
        return self

    def materialize(self) -> Tensor:
        """All entries."""
        return self.rows(0, self.size(0))

    def before_materializing(self, name: str) -> None:
        """Warns, as the features would."""
        self.source.before_materializing(name)  # type: ignore[attr-defined]

    def rows(self, start: int, stop: int) -> Tensor:
        """The rows from ``start`` to before ``stop``."""
        index = torch.arange(start, stop, device=self.device)
        return self.factor * self.source.gather_rows(index)  # type: ignore[attr-defined, no-any-return]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.materialize().__reduce_ex__(protocol)


def is_factor(value: Any) -> bool:
    """Whether packed features may wait to be multiplied by ``value``."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.dim() <= 2 and value.dtype == torch.float32
    return isinstance(value, (int, float))


def add_scaled(out: Tensor, scaled: Scaled) -> Tensor:
    """``out + scaled``, into ``out`` and a block of rows at a time where no gradient is needed."""
    if out.requires_grad or scaled.requires_grad:
        return out + scaled.materialize()
    for start in range(0, len(out), _BLOCK):
        stop = min(start + _BLOCK, len(out))
        out[start:stop] += scaled.rows(start, stop)
    return out


@handles(Scaled, getter("requires_grad"))
def _requires_grad(scaled: Scaled) -> bool:
    return isinstance(scaled.factor, Tensor) and scaled.factor.requires_grad


@handles(Scaled, Tensor.__getitem__)
def _getitem(scaled: Any, rows: Any) -> Any:
    return Scaled(scaled.source[rows], scaled.factor) if isinstance(rows, slice) else NotImplemented


@handles(Scaled, F.linear)
def _linear(scaled: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not isinstance(scaled, Scaled):
        return NotImplemented
    out = scaled.factor * plain(F.linear(scaled.source, weight))
    return out if bias is None else out + bias
