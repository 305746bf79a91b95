"""The gradient of a maximum over edges."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.library import define


def _fake(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    out: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor]:
    heads = 1 if weight is None or weight.dim() == 1 else weight.size(1)
    return x.new_empty(x.shape), x.new_empty(col.size(0), heads)


max_backward = define(
    "max_backward(Tensor x, Tensor rowptr, Tensor col, Tensor? perm, Tensor? weight, Tensor out, "
    "Tensor grad) -> (Tensor, Tensor)",
    _fake,
    folders={"CPU": "reference", "CUDA": "reference"},
)
"""Gradients of :func:`aggregate` with ``reduce="max"``, to ``x`` and to weights ``(E, H)``.

Of a maximum ``out`` that several edges reach each takes an equal part of ``grad``.
"""
