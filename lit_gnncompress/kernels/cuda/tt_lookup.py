"""Triton: ``tt_lookup``."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from lit_gnncompress.kernels.cuda.tt_half import Half, sort_keys
from lit_gnncompress.kernels.cuda.tt_product import multiply
from lit_gnncompress.kernels.reference.tt_lookup import tt_lookup as reference

STEP = 1 << 16
"""Slots at a time where each has a product of two cores of its own."""

_BLOCK = 256


def tt_lookup(
    indices: Tensor, cores: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.tt_lookup`: a table of pairs, then a product a row.

    The host waits for nothing, and what is launched depends on shapes alone.
    """
    if cores[0].dtype == torch.float64:
        return reference(indices, cores, keep)
    dtype = cores[0].dtype
    slots, width = indices.numel(), math.prod(core.size(2) for core in cores)
    out = indices.new_empty(*indices.shape, width, dtype=dtype)
    perm, left, right = (indices.new_empty(slots, dtype=torch.int32) for _ in range(3))
    if slots == 0:
        return out, perm, left, right
    with torch.cuda.device_of(out), torch.autocast("cuda", enabled=False):
        halves = halves_of(cores, slots)
        split(indices, halves, left, right)
        place = None
        if keep:
            right, perm = sort_keys(right, halves[1].count)
            left, place = left[perm.long()], perm
        for part in parts_of(halves, slots):
            a, b, of_a, of_b = factors_of(halves, left[part], right[part])
            rows = out.view(slots, width)
            count = part.stop - part.start
            if place is None:
                multiply(a, b, of_a, of_b, None, count, rows[part])
            else:
                multiply(a, b, of_a, of_b, place[part], count, rows)
    if not keep:
        perm, left, right = (indices.new_empty(0, dtype=torch.int32) for _ in range(3))
    return out, perm, left, right


def halves_of(cores: list[Tensor], slots: int) -> tuple[Half, Half]:
    """The two halves of the cores, in float32."""
    cores = [core.detach().float().contiguous() for core in cores]
    half = len(cores) // 2
    return Half(cores[:half], slots), Half(cores[half:], slots)


def split(indices: Tensor, halves: tuple[Half, Half], left: Tensor, right: Tensor) -> None:
    """Writes the digits of all indices, as one number for each half."""
    slots = left.size(0)
    _split[(triton.cdiv(slots, _BLOCK),)](
        indices.reshape(-1).contiguous(),
        left,
        right,
        slots,
        halves[0].count * halves[1].count,
        halves[1].count,
        BLOCK=_BLOCK,
        debug=True,  # the assertion is there
        enable_fp_fusion=False,
    )


def factors_of(
    halves: tuple[Half, Half], left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """What ``multiply`` takes for the rows of some slots: two tables, and what each slot takes."""
    a, of_a = halves[0].matrices(left)
    b, of_b = halves[1].matrices(right)
    a = a.view(a.size(0), halves[0].height, -1)
    return a, b.view(b.size(0), a.size(2), -1), of_a, of_b


def parts_of(halves: tuple[Half, Half], slots: int) -> list[slice]:
    """All slots, in parts whose products of cores fit into memory."""
    step = STEP if any(half.by_slot for half in halves) else slots
    return [slice(first, min(first + step, slots)) for first in range(0, slots, step)]


@triton.jit(do_not_specialize=("slots",))
def _split(
    indices: tl.tensor,
    left: tl.tensor,
    right: tl.tensor,
    slots: tl.tensor,
    capacity: tl.tensor,
    behind: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    slot = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = slot < slots
    index = tl.load(indices + slot, live, 0).to(tl.int64)
    tl.device_assert((index >= 0) & (index < capacity), "tt_lookup: an index is out of range")
    tl.store(left + slot, (index // behind).to(tl.int32), live)
    tl.store(right + slot, (index % behind).to(tl.int32), live)
