"""Inputs that recur from step to step: quantized once."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from lit_gnncompress.quantization.context import Seen
from lit_gnncompress.quantization.degrees import DegreeBuckets


class StaticInput:
    """An input without gradient and what it was quantized to: such an input may recur.

    What was kept is dropped together with the input, so that hidden features in evaluation, which
    have no gradient either, are not held.

    Args:
        x: The input.
        buckets: Buckets of its rows.
        quantized: What it was quantized to.
        seen: What the ledger is told.
        owner: The list that the site keeps this in; it is cleared when ``x`` dies.
    """

    def __init__(
        self,
        x: Tensor,
        buckets: DegreeBuckets | None,
        quantized: Tensor,
        seen: Seen,
        owner: list[StaticInput],
    ) -> None:
        self.source = weakref.ref(x, lambda _: owner.clear())
        self.version = x._version
        self.buckets = buckets
        self.quantized = quantized
        self.quantized_version = quantized._version
        self.seen = seen._replace(source=self.source)

    def is_of(self, x: Tensor, buckets: DegreeBuckets | None) -> bool:
        """Whether ``x`` is this input, unchanged, and its nodes are in the same buckets."""
        return (
            self.source() is x
            and self.version == x._version
            and self.quantized_version == self.quantized._version  # a layer may write to it
            and (self.buckets is buckets or _same_index(self.buckets, buckets))
        )


def _same_index(a: DegreeBuckets | None, b: DegreeBuckets | None) -> bool:
    return a is not None and b is not None and torch.equal(a.index, b.index)
