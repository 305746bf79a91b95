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
    """``factor * source``, of the shape of ``source``, until somebody asks for its entries.

    Args:
        source: Packed features ``(N, F)``.
        factor: A number, or a float32 tensor of one element that does not learn.
    """

    source: Tensor
    factor: Tensor | float
    _result: Tensor | None

    @staticmethod
    def __new__(cls, source: Tensor, factor: Tensor | float) -> Scaled:
        """A promise of shape ``(N, F)``."""
        self = cast(Scaled, VirtualTensor.__new__(cls, source.shape, source.device))
        # The tensor may be written to before the product is used.
        self.factor = factor.detach().clone() if isinstance(factor, Tensor) else factor
        self.source, self._result = source, None
        return self

    @property
    def waits(self) -> bool:
        """Whether nobody has asked for the entries, which may be written to from then on."""
        return self._result is None

    def materialize(self) -> Tensor:
        """All entries; worked out once."""
        if self._result is None:
            self._result = self.rows(0, self.size(0))
        return self._result

    def before_materializing(self, name: str) -> None:
        """Warns, as the features would."""
        if self.waits:
            self.source.before_materializing(name)  # type: ignore[attr-defined]

    def rows(self, start: int, stop: int) -> Tensor:
        """The rows from ``start`` to before ``stop``."""
        index = torch.arange(start, stop, device=self.device)
        rows: Tensor = self.source.gather_rows(index)  # type: ignore[attr-defined]
        return rows.mul_(self.factor)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.materialize().__reduce_ex__(protocol)


def is_factor(value: Any) -> bool:
    """Whether packed features may wait to be multiplied by ``value``."""
    if not isinstance(value, Tensor):
        return isinstance(value, (int, float))
    learns = value.requires_grad and torch.is_grad_enabled()
    return value.numel() == 1 and value.dim() <= 2 and value.dtype == torch.float32 and not learns


def add_scaled(out: Tensor, scaled: Scaled, first: int = 0) -> Tensor:
    """Adds to ``out`` the rows of ``scaled`` from ``first`` on.

    Where no gradient is needed, they are added in place and a block of them at a time.
    """
    if out.requires_grad:
        return out + scaled.rows(first, first + len(out))
    for start in range(0, len(out), _BLOCK):
        stop = min(start + _BLOCK, len(out))
        out[start:stop] += scaled.rows(first + start, first + stop)
    return out


@handles(Scaled, getter("requires_grad"))
def _requires_grad(scaled: Scaled) -> bool:
    return scaled._result is not None and scaled._result.requires_grad


@handles(Scaled, F.linear)
def _linear(scaled: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not isinstance(scaled, Scaled) or not scaled.waits:
        return NotImplemented
    out = scaled.factor * plain(F.linear(scaled.source, weight))
    return out if bias is None else out + bias
