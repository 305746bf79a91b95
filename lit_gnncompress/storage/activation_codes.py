"""Values of a tensor in few bits, whatever its shape: what activations become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lit_gnncompress.kernels import gather_dequantize, pack_bits, quantize_pack, unpack_bits

GROUP = 256
"""Adjacent values that share a range: its 8 bytes are a quarter of a bit for each of them."""


class Layout(NamedTuple):
    """How a tensor lies in memory."""

    shape: torch.Size
    order: list[int]  # of dimensions, outermost first
    lengths: torch.Size  # in that order, 1 where a dimension repeats

    def restore(self, flat: Tensor) -> Tensor:
        """The tensor that :func:`flatten` was given, of these values; what repeats is expanded."""
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return flat.view(self.lengths).permute(inverse).expand(self.shape)


def flatten(tensor: Tensor) -> tuple[Tensor, Layout]:
    """The values in memory order, a view where they are dense; what repeats is taken once."""
    once = tensor
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.size(dim) > 1:
            once = once.narrow(dim, 0, 1)
    order = sorted(range(once.dim()), key=once.stride, reverse=True)
    ordered = once.permute(order)
    return ordered.reshape(-1), Layout(tensor.shape, order, ordered.shape)


@dataclass(frozen=True, eq=False)
class PackedMask:
    """One bit a value: bools, or signs that come back as 0 and 1."""

    packed: Tensor
    count: int
    dtype: torch.dtype

    @classmethod
    def of(cls, flat: Tensor, dtype: torch.dtype = torch.bool) -> PackedMask:
        """Packs bools of shape ``(count,)``."""
        full, rest = _groups(flat.view(torch.uint8))
        packed = [pack_bits(part, 1) for part in (full, rest) if part is not None]
        return cls(_joined(packed), flat.numel(), dtype)

    @classmethod
    def of_sign(cls, flat: Tensor) -> PackedMask | None:
        """Packs whether values are positive; ``None`` where one of them is NaN."""
        # NaN is neither positive nor not; a sum is the cheapest way to find one.
        return None if bool(flat.sum(dtype=torch.float32).isnan()) else cls.of(flat > 0, flat.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        return self.packed.nbytes

    def restore(self) -> Tensor:
        """The values, of shape ``(count,)``."""
        values = unpack_bits(self.packed, 1, GROUP).view(-1)[: self.count]
        return values.view(torch.bool) if self.dtype == torch.bool else values.to(self.dtype)


@dataclass(frozen=True, eq=False)
class GroupCodes:
    """Codes of groups of adjacent values, each with a range, or one of all."""

    packed: Tensor
    lo: Tensor
    scale: Tensor
    bits: int
    count: int
    dtype: torch.dtype

    @classmethod
    def of(cls, flat: Tensor, bits: int, next_seed: Callable[[], int]) -> GroupCodes | None:
        """Rounds values of shape ``(count,)`` stochastically; ``None`` where some are not finite.

        Values that are all 0 or one other get one bit, without rounding.
        """
        full, rest = _groups(flat)
        parts = [part for part in (full, rest) if part is not None]
        # Not torch.aminmax, which is several times slower by row.
        lo = torch.cat([part.amin(1) for part in parts]).float()
        hi = torch.cat([part.amax(1) for part in parts]).float()
        scale = (hi - lo) / (2**bits - 1)
        if not bool(scale.isfinite().all()):
            return None
        top = hi.max()
        if _has_two_values(flat, lo, top):
            zero, top = lo.new_zeros(1), top.view(1)
            packed = [quantize_pack(part, zero, top, 1) for part in parts]
            return cls(_joined(packed), zero, top, 1, flat.numel(), flat.dtype)
        packed, row = [], 0
        for part in parts:
            rows = slice(row, row + len(part))
            packed.append(quantize_pack(part, lo[rows], scale[rows], bits, next_seed()))
            row += len(part)
        return cls(_joined(packed), lo, scale, bits, flat.numel(), flat.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes kept: codes and ranges."""
        return self.packed.nbytes + self.lo.nbytes + self.scale.nbytes

    def restore(self) -> Tensor:
        """The values, of shape ``(count,)``."""
        values = gather_dequantize(self.packed, self.lo, self.scale, self.bits, GROUP)
        return values.view(-1)[: self.count].to(self.dtype)


def _groups(flat: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Whole groups, and one more of the values that are left, filled up with the last of them."""
    count = flat.numel() // GROUP * GROUP
    full = flat[:count].view(-1, GROUP) if count else None
    left = flat.numel() - count
    if not left:
        return full, None
    filling = flat[-1:].expand(GROUP - left)
    return full, torch.cat([flat[count:], filling]).view(1, GROUP)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _has_two_values(flat: Tensor, lo: Tensor, top: Tensor) -> bool:
    """Whether all values are 0 or ``top``: what one bit holds exactly."""
    if not bool((lo.min() == 0) & (top == top.to(flat.dtype))):
        return False
    top = top.to(flat.dtype)

    def holds(values: Tensor) -> bool:
        return bool((values == 0).logical_or_(values == top).all())

    return holds(flat[: 4 * GROUP]) and holds(flat)
