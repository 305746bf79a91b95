"""Inputs that recur from step to step: quantized once."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_gnncompress.quantization.calibration import KnownRange
from lit_gnncompress.quantization.context import Seen
from lit_gnncompress.quantization.degrees import DegreeBuckets

_KEPT = 4  # training and evaluation, senders and receivers


@dataclass(frozen=True, eq=False)
class StaticInput:
    """An input without gradient, and what it was quantized to.

    Attributes:
        source: The input.
        version: How often the input had been written to.
        buckets: Buckets of its rows.
        quantized: What it was quantized to.
        quantized_version: The same of that: a layer may write to what it is given.
        seen: What the ledger is told.
        found: The range that was found for it, where it is packed.
    """

    source: weakref.ref[Tensor]
    version: int
    buckets: DegreeBuckets | None
    quantized: Tensor
    quantized_version: int
    seen: Seen
    found: KnownRange | None

    def is_of(self, x: Tensor, buckets: DegreeBuckets | None) -> bool:
        """Whether ``x`` is this input, unchanged, and its nodes are in the same buckets."""
        return (
            self.source() is x
            and self.version == x._version
            and self.quantized_version == self.quantized._version
            and (self.buckets is buckets or _same_index(self.buckets, buckets))
        )


class StaticInputs:
    """The inputs of one site that may recur, the latest few.

    What was kept is dropped together with its input, so that hidden features in evaluation, which
    have no gradient either, are not held.
    """

    def __init__(self) -> None:
        self._inputs: list[StaticInput] = []

    def __len__(self) -> int:
        return len(self._inputs)

    def find(self, x: Tensor, buckets: DegreeBuckets | None) -> StaticInput | None:
        """The entry of ``x``, if it is unchanged."""
        return next((kept for kept in self._inputs if kept.is_of(x, buckets)), None)

    def keep(
        self,
        x: Tensor,
        buckets: DegreeBuckets | None,
        quantized: Tensor,
        seen: Seen,
        found: KnownRange | None = None,
    ) -> StaticInput:
        """Makes an entry of ``x``, in place of an older one."""
        source = weakref.ref(x, self._drop)
        seen = seen._replace(source=source)
        kept = StaticInput(source, x._version, buckets, quantized, quantized._version, seen, found)
        others = [other for other in self._inputs if other.source() is not x]
        self._inputs = [*others, kept][-_KEPT:]
        return kept

    def _drop(self, source: weakref.ref[Tensor]) -> None:
        self._inputs = [kept for kept in self._inputs if kept.source is not source]


def _same_index(a: DegreeBuckets | None, b: DegreeBuckets | None) -> bool:
    return a is not None and b is not None and torch.equal(a.index, b.index)
