"""Messages along edges, reduced at their targets, and packed as soon as they are."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.activate_pack import check_finish, empty_results
from lit_gnncompress.kernels.adjacency import Adjacency, check_edge_weight, check_rows
from lit_gnncompress.kernels.layout import check_bits
from lit_gnncompress.kernels.library import define


def aggregate_pack(
    x: Tensor,
    adjacency: Adjacency,
    bits: int,
    weight: Tensor | None = None,
    reduce: str = "sum",
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    activation: str = "none",
    lo: Tensor | None = None,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""What :func:`quantize_pack` makes of :func:`aggregate`'s rows, of which one exists at a time.

    .. math:: y_{tf} = \mathrm{reduce}_{e:\,target(e)=t}\; w_e\, x_{source(e),\,f} + b_f + z_{tf}

    Codes are those of ``y`` after the activation, rounded to nearest. Without ``lo`` and ``scale``
    each row has a range of its own, from its minimum to its maximum; the scale of a row of one
    value is 1. Not differentiable.

    Args:
        x: Rows of sources, float32, shape ``(N, F)`` with columns.
        adjacency: The edges.
        bits: Bits of a code.
        weight: float32, shape ``(E,)``, in the caller's order of edges. 1 each if ``None``.
        reduce: ``"sum"`` or ``"mean"``.
        bias: Added to each row, float32, shape ``(F,)``.
        residual: Rows that are added then, ``z``, float32, shape ``(M, F)``.
        activation: ``"none"``, ``"relu"`` or ``"elu"`` (of :math:`\alpha = 1`).
        lo: Value of code 0 of all rows, float32, shape ``(1,)``.
        scale: Distance of two codes of all rows, likewise.

    Returns:
        uint8, shape ``(M, row_bytes(F, bits))``; ``lo`` and ``scale`` of each row, float32, shape
        ``(M,)``, or ``(0,)`` where they were given; and whether all rows are finite, bool, shape
        ``()``: codes of one that is not mean nothing.

    Raises:
        ValueError: Bits outside 1 to 8, tensors that do not fit each other, another ``reduce``, or
            one of ``lo`` and ``scale`` without the other.
    """
    check_bits(bits)
    if reduce not in ("sum", "mean"):
        raise ValueError(f"reduce={reduce!r} is none of sum, mean.")
    check_rows("x", x, adjacency.num_sources, adjacency)
    if x.size(1) == 0:
        raise ValueError(f"x of shape {tuple(x.shape)} has no columns: there is nothing to pack.")
    check_edge_weight(weight, x.size(1), adjacency)
    if weight is not None and weight.dim() > 1:
        raise ValueError(f"weight has shape {tuple(weight.shape)}: it must be one for each edge.")
    check_finish(x, adjacency.num_targets, bias, residual, activation, lo, scale)
    edges = adjacency.rowptr, adjacency.col, adjacency.perm
    return _aggregate_pack(x, *edges, weight, reduce, bias, residual, activation, bits, lo, scale)


def _fake(
    x: Tensor,
    rowptr: Tensor,
    col: Tensor,
    perm: Tensor | None,
    weight: Tensor | None,
    reduce: str,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    bits: int,
    lo: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return empty_results(x, rowptr.size(0) - 1, bits, lo)


_aggregate_pack = define(
    "aggregate_pack(Tensor x, Tensor rowptr, Tensor col, Tensor? perm, Tensor? weight, str reduce, "
    "Tensor? bias, Tensor? residual, str activation, int bits, Tensor? lo, Tensor? scale) "
    "-> (Tensor packed, Tensor row_lo, Tensor row_scale, Tensor finite)",
    _fake,
    folders={"CUDA": "reference"},
)
