"""The gradient of an aggregation of sparse rows to the weights of edges."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.library import define


def _fake(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    first: Tensor | None,
    edge_rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor,
    reduce: str,
    out: Tensor | None,
    grad: Tensor,
) -> Tensor:
    return weight.new_empty(weight.shape)


sparse_aggregate_backward = define(
    "sparse_aggregate_backward(Tensor rowptr, Tensor columns, Tensor? values, Tensor lo, "
    "Tensor scale, int bits, int width, Tensor? first, Tensor edge_rowptr, Tensor col, "
    "Tensor? perm, Tensor weight, str reduce, Tensor? out, Tensor grad) -> Tensor",
    _fake,
    folders={"CPU": "reference", "CUDA": "reference"},
)
"""Gradient of :func:`sparse_aggregate` to ``weight``; ``out`` is needed by ``reduce="max"``."""
