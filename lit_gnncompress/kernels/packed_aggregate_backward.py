"""The gradient of an aggregation of packed rows to the weights of edges."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.library import define


def _fake(
    packed: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor,
    reduce: str,
    out: Tensor | None,
    grad: Tensor,
) -> Tensor:
    return weight.new_empty(weight.shape)


packed_aggregate_backward = define(
    "packed_aggregate_backward(Tensor packed, Tensor lo, Tensor scale, int bits, int width, "
    "Tensor rowptr, Tensor col, Tensor? perm, Tensor weight, str reduce, Tensor? out, "
    "Tensor grad) -> Tensor",
    _fake,
    folders={"CPU": "reference", "CUDA": "reference"},
)
"""Gradient of :func:`packed_aggregate` to ``weight``; ``out`` is needed by ``reduce="max"``.

Rows are dequantized for some edges at a time, so that no E × F messages are in memory.
"""
