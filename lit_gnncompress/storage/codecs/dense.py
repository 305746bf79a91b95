"""Every code of a row: packed, or rows kept as they are."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gnncompress.kernels import (
    Adjacency,
    aggregate,
    gather_dequantize,
    packed_aggregate,
    packed_linear,
    unpack_bits,
)
from lit_gnncompress.kernels.layout import check_index, check_packed
from lit_gnncompress.plan import FULL_PRECISION
from lit_gnncompress.storage.codecs.base import Codec, expect


class DenseCodec(Codec):
    """Packed rows, each filled up to groups of 16 codes.

    Args:
        packed: uint8, shape ``(N, row_bytes(F, bits))``.
        lo: Value of code 0, float32, shape ``(1,)``, ``(N,)``, or ``(F,)`` if ``by_column``.
        scale: Distance of two codes, shape as ``lo`` or ``(1,)``.
        bits: Bits of a code.
        width: Columns, ``F``.
        by_column: Whether ``lo`` and ``scale`` are of columns.
        thorough: Whether to read all ranges, see :class:`Codec`.

    Raises:
        ValueError: Tensors that do not fit each other.
    """

    name = "dense"

    def __init__(
        self,
        packed: Tensor,
        lo: Tensor,
        scale: Tensor,
        bits: int,
        width: int,
        by_column: bool = False,
        thorough: bool = True,
    ) -> None:
        check_packed(packed, bits, width)
        parts = {"codes": packed, "lo": lo, "scale": scale}
        super().__init__(parts, packed.size(0), width, bits, by_column, thorough)

    @property
    def packed(self) -> Tensor:
        """The packed rows, uint8."""
        return self._parts["codes"]

    def codes(self) -> Tensor:
        """All codes, uint8, shape ``(N, F)``."""
        return unpack_bits(self.packed, self.bits, self.width)

    def _gather(self, index: Tensor | None, lo: Tensor, scale: Tensor) -> Tensor:
        return gather_dequantize(self.packed, lo, scale, self.bits, self.width, index)

    def _linear(self, weight: Tensor, lo: Tensor, scale: Tensor) -> Tensor:
        return packed_linear(self.packed, lo, scale, self.bits, self.width, weight)

    def _aggregate(
        self, adjacency: Adjacency, weight: Tensor | None, reduce: str, lo: Tensor, scale: Tensor
    ) -> Tensor:
        return packed_aggregate(
            self.packed, lo, scale, self.bits, self.width, adjacency, weight, reduce
        )

    def _take(self, index: Tensor) -> dict[str, Tensor]:
        return {"codes": self.packed.index_select(0, index)}

    @classmethod
    def _load(
        cls,
        meta: dict[str, Any],
        tensors: dict[str, Tensor],
        thorough: bool,
        rows: int,
        width: int,
        bits: int,
    ) -> Codec:
        expect(tensors, {"codes"}, {"lo", "scale"})
        packed = tensors["codes"]
        check_packed(packed, bits, width)
        if packed.size(0) != rows:
            raise ValueError(f"codes has {packed.size(0)} rows, but rows={rows}.")
        byte, bit = divmod(width * bits, 8)
        if thorough and bool(
            (packed[:, byte : byte + 1] >> bit).any() | packed[:, byte + 1 :].any()
        ):
            raise ValueError("codes: what fills up the rows must be zero.")
        one = torch.ones(1, device=packed.device, dtype=torch.float32)
        lo, scale = tensors.get("lo", torch.zeros_like(one)), tensors.get("scale", one)
        return cls(packed, lo, scale, bits, width, bool(meta.get("by_column")), thorough)


class FloatCodec(Codec):
    """Rows kept in float32: those of a bucket that is not quantized.

    Args:
        values: float32, shape ``(N, F)``.

    Raises:
        ValueError: No float32 matrix.
    """

    name = "float"

    def __init__(self, values: Tensor) -> None:
        if values.dtype != torch.float32 or values.dim() != 2:
            raise ValueError(
                f"values must be a float32 matrix (N, F), got {values.dtype} of shape "
                f"{tuple(values.shape)}."
            )
        rows, width = values.shape
        super().__init__({"values": values}, rows, width, FULL_PRECISION, False)

    @property
    def values(self) -> Tensor:
        """The rows, float32."""
        return self._parts["values"]

    def codes(self) -> Tensor:
        """Rows that are not quantized have none.

        Raises:
            ValueError: Always.
        """
        raise ValueError("rows of bits=32 have no codes: ask for their values with gather().")

    def _gather(self, index: Tensor | None, lo: Tensor, scale: Tensor) -> Tensor:
        if index is None:
            return self.values.clone()
        check_index(index, self.num_rows, self.values)
        return self.values.index_select(0, index)

    def _linear(self, weight: Tensor, lo: Tensor, scale: Tensor) -> Tensor:
        return F.linear(self.values, weight)

    def _aggregate(
        self, adjacency: Adjacency, weight: Tensor | None, reduce: str, lo: Tensor, scale: Tensor
    ) -> Tensor:
        return aggregate(self.values, adjacency, weight, reduce)

    def _take(self, index: Tensor) -> dict[str, Tensor]:
        return {"values": self.values.index_select(0, index)}

    @classmethod
    def _load(
        cls,
        meta: dict[str, Any],
        tensors: dict[str, Tensor],
        thorough: bool,
        rows: int,
        width: int,
        bits: int,
    ) -> Codec:
        expect(tensors, {"values"}, set())
        if tuple(tensors["values"].shape) != (rows, width) or bits != FULL_PRECISION:
            raise ValueError(
                f"values has shape {tuple(tensors['values'].shape)}, but rows={rows}, "
                f"width={width}, bits={bits}; bits must be {FULL_PRECISION}."
            )
        return cls(tensors["values"])
