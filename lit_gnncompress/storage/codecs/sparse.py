"""The codes that are not zero: CSR with columns, or with the gaps between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from lit_gnncompress.kernels import (
    Adjacency,
    pack_bits,
    sparse_aggregate,
    sparse_gather_dequantize,
    sparse_linear,
)
from lit_gnncompress.kernels.layout import GAP, check_bits, check_index, stream_bytes
from lit_gnncompress.kernels.reference.sparse_rows import stored_codes
from lit_gnncompress.kernels.sparse_layout import check_sparse, validate_sparse
from lit_gnncompress.storage.codecs.base import Codec, expect


class Entries(NamedTuple):
    """The codes of some rows that are not zero, in the order of rows and columns.

    Attributes:
        row: int64, shape ``(K,)``.
        column: int64, shape ``(K,)``.
        code: uint8, shape ``(K,)``.
        rows: Number of rows.
    """

    row: Tensor
    column: Tensor
    code: Tensor
    rows: int


class SparseCodec(Codec):
    """Rows as CSR: a column for each code that is not zero and, where they differ, the codes.

    Row pointers take 4 bytes (8 from 2³¹ entries on) and columns 2 bytes (4 from 65,537 columns
    on), in memory and in files.

    If all codes are the same, a row's scale that is one over their number, divided by the code, is
    derived and not kept: row-normalised binary features.

    Args:
        parts: ``rowptr`` and ``columns`` as ``kernels.sparse_layout`` tells; ``values`` if codes
            differ; ``lo``; ``scale``, if it is not derived.
        width: Columns, ``F``.
        bits: Bits of a code.
        unit: The one code that is not zero, where there are no ``values``.
        by_column: Whether ``lo`` and ``scale`` are of columns.

    Raises:
        ValueError: Tensors that do not fit each other.
    """

    name = "sparse"

    _COLUMNS: ClassVar[tuple[torch.dtype, ...]] = (torch.uint16, torch.int32)

    def __init__(
        self,
        parts: dict[str, Tensor],
        width: int,
        bits: int,
        unit: int = 1,
        by_column: bool = False,
    ) -> None:
        check_bits(bits)
        if not 1 <= unit < 2**bits:
            raise ValueError(f"unit={unit} is no code of bits={bits} other than zero.")
        self._check_columns(parts["columns"])
        self.unit, self._counts_scale = unit, "scale" not in parts
        super().__init__(parts, parts["rowptr"].size(0) - 1, width, bits, by_column)
        check_sparse(*self._arguments(*self._no_range()), first=self._parts.get("first"))

    @classmethod
    def of(
        cls,
        blocks: Iterable[Entries],
        lo: Tensor,
        scale: Tensor | None,
        bits: int,
        width: int,
        unit: int | None,
        by_column: bool = False,
    ) -> SparseCodec:
        """Builds it from blocks of rows.

        Args:
            blocks: The codes, with rows counted within each block.
            lo: Value of code 0.
            scale: Distance of two codes; ``None`` derives it from the number of a row's codes.
            bits: Bits of a code.
            width: Columns.
            unit: The one code that is not zero; ``None`` if there are several.
            by_column: Whether ``lo`` and ``scale`` are of columns.
        """
        parts = cls._pack(blocks, bits, width, unit is None, scale is None) | {"lo": lo}
        if scale is not None:
            parts["scale"] = scale
        return cls(parts, width, bits, unit or 1, by_column)

    @property
    def scale(self) -> Tensor:
        """Distance of two codes, float32, shape ``(1,)``, ``(N,)``, or ``(F,)``."""
        return scale_of_counts(self._counts(), self.unit) if self._counts_scale else super().scale

    def codes(self) -> Tensor:
        """All codes, uint8, shape ``(N, F)``."""
        codes = torch.zeros(self.num_rows, self.width, dtype=torch.uint8, device=self.device)
        row, column, code, _ = self._entries()
        codes[row, column] = code
        return codes

    def gather(self, index: Tensor | None = None) -> Tensor:
        """The values of rows, see :meth:`Codec.gather`."""
        if index is None or not self._counts_scale:
            return super().gather(index)
        # The scales of these rows alone: there may be many others.
        check_index(index, self.num_rows, self._parts["columns"])
        scale = scale_of_counts(self._counts(index), self.unit) * self.unit
        rows = sparse_gather_dequantize(
            *self._parts_of_kernels(), *self._no_range(), self.bits, self.width, index
        )
        by_row = not self.by_column and self.lo.numel() > 1
        lo = self.lo.index_select(0, index).unsqueeze(1) if by_row else self.lo
        return rows.mul_(scale.unsqueeze(1)).add_(lo)

    def meta(self) -> dict[str, Any]:
        """Plain numbers and strings: what else :meth:`from_tensors` needs."""
        scale = "count" if self._counts_scale else "kept"
        return super().meta() | {"unit": self.unit, "scale": scale}

    # --- entries --------------------------------------------------------------------------------

    def _counts(self, index: Tensor | None = None) -> Tensor:
        """Number of codes in rows, integers of any size."""
        rowptr = self._parts["rowptr"]
        return rowptr.diff() if index is None else rowptr[index + 1] - rowptr[index]

    def _entries(self, index: Tensor | None = None) -> Entries:
        parts = self._parts
        row, column, code = stored_codes(
            *self._parts_of_kernels(), self.bits, parts.get("first"), index
        )
        rows = self.num_rows if index is None else index.size(0)
        code = code if "values" in parts else code * self.unit
        return Entries(row, column, code.to(torch.uint8), rows)

    @classmethod
    def _pack(
        cls, blocks: Iterable[Entries], bits: int, width: int, values: bool, counts_scale: bool
    ) -> dict[str, Tensor]:
        packed = [(*cls._columns(block, width), block.code) for block in blocks]
        columns, sizes, codes = (torch.cat(each) for each in zip(*packed, strict=True))
        parts = {"rowptr": _pointers(sizes), "columns": columns}
        if values:
            stream = pack_bits(codes.unsqueeze(0), bits).squeeze(0)
            parts["values"] = stream[: stream_bytes(codes.size(0), bits)].clone()
        return parts | cls._besides(parts, values, counts_scale)

    @classmethod
    def _columns(cls, block: Entries, width: int) -> tuple[Tensor, Tensor]:
        """The columns as they are kept, and the number of entries of each row."""
        narrow = torch.uint16 if width <= 2**16 else torch.int32
        return block.column.to(narrow), torch.bincount(block.row, minlength=block.rows)

    @classmethod
    def _besides(
        cls, parts: dict[str, Tensor], values: bool, counts_scale: bool
    ) -> dict[str, Tensor]:
        """What else is kept in memory so that rows are found."""
        return {}

    @classmethod
    def _names_besides(cls, values: bool, counts_scale: bool) -> set[str]:
        """The names of what :meth:`_besides` adds."""
        return set()

    @classmethod
    def _check_columns(cls, columns: Tensor) -> None:
        if columns.dtype not in cls._COLUMNS:
            raise ValueError(
                f"columns of codec {cls.name!r} must be of {cls._COLUMNS}, got {columns.dtype}."
            )

    # --- for Codec ------------------------------------------------------------------------------

    def _parts_of_kernels(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self._parts["rowptr"], self._parts["columns"], self._parts.get("values")

    def _arguments(
        self, lo: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, int, int]:
        # What is stored as 1 is the code ``unit``.
        scale = scale * self.unit if self.unit > 1 else scale
        return *self._parts_of_kernels(), lo, scale, self.bits, self.width

    def _gather(self, index: Tensor | None, lo: Tensor, scale: Tensor) -> Tensor:
        first = self._parts.get("first")
        return sparse_gather_dequantize(*self._arguments(lo, scale), index=index, first=first)

    def _linear(self, weight: Tensor, lo: Tensor, scale: Tensor) -> Tensor:
        first = self._parts.get("first")
        return sparse_linear(*self._arguments(lo, scale), weight, first=first)

    def _aggregate(
        self, adjacency: Adjacency, weight: Tensor | None, reduce: str, lo: Tensor, scale: Tensor
    ) -> Tensor:
        first = self._parts.get("first")
        return sparse_aggregate(*self._arguments(lo, scale), adjacency, weight, reduce, first=first)

    def _take(self, index: Tensor) -> dict[str, Tensor]:
        entries, values = self._entries(index.long()), "values" in self._parts
        return self._pack([entries], self.bits, self.width, values, self._counts_scale)

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
        counts_scale, unit = meta.get("scale") == "count", meta.get("unit", 1)
        besides = cls._names_besides("values" in tensors, counts_scale)
        expect(tensors, {"rowptr", "columns"} | besides, {"values", "lo", "scale"})
        if counts_scale == ("scale" in tensors):
            raise ValueError(f"scale={meta.get('scale')!r} of a codec: a tensor does not fit it.")
        if isinstance(unit, bool) or not isinstance(unit, int):
            raise ValueError(f"unit={unit!r} of a codec must be an integer.")
        rowptr, counts = tensors["rowptr"], tensors.get("counts")
        if rowptr.shape != (rows + 1,):
            raise ValueError(
                f"rowptr has shape {tuple(rowptr.shape)}, but rows={rows}: it needs one entry more."
            )
        if counts is not None and (counts.dtype not in _SIZES or counts.shape != (rows,)):
            raise ValueError(
                f"counts must be {rows} integers, one a row, got {counts.dtype} of shape "
                f"{tuple(counts.shape)}."
            )
        codec = cls(tensors, width, bits, unit, bool(meta.get("by_column")))
        if thorough:
            pointers = rowptr, tensors["columns"], width, tensors.get("values")
            validate_sparse(*pointers, tensors.get("first"))
            expected = cls._besides(tensors, "values" in tensors, counts_scale)
            if counts is not None and not bool((counts == expected["counts"]).all()):
                raise ValueError("counts: it is not the number of codes of each row.")
        return codec


class GapCodec(SparseCodec):
    """Rows as CSR with a byte for each gap between columns, see ``kernels.sparse_layout``.

    Kept besides are, for each row, the number of its codes in 1, 2 or 4 bytes where the scale
    derives from it, or 4 bytes that tell where its ``values`` begin.
    """

    name = "gaps"

    _COLUMNS = (torch.uint8,)

    def _counts(self, index: Tensor | None = None) -> Tensor:
        counts = self._parts["counts"]
        return counts if index is None else counts.index_select(0, index)

    @classmethod
    def _columns(cls, block: Entries, width: int) -> tuple[Tensor, Tensor]:
        gap, own = gaps_of(block)
        columns = torch.full((int(own.sum()),), GAP, dtype=torch.uint8, device=gap.device)
        columns[own.cumsum(0) - 1] = (gap % GAP).to(torch.uint8)
        sizes = gap.new_zeros(block.rows).index_add_(0, block.row, own)
        return columns, sizes

    @classmethod
    def _besides(
        cls, parts: dict[str, Tensor], values: bool, counts_scale: bool
    ) -> dict[str, Tensor]:
        if not values and not counts_scale:
            return {}
        before = (parts["columns"] < GAP).cumsum(0)
        before = torch.cat([before.new_zeros(1), before])[parts["rowptr"].long()]
        if values:
            return {"first": _pointers(before.diff())}
        return {"counts": _narrow(before.diff())}

    @classmethod
    def _names_besides(cls, values: bool, counts_scale: bool) -> set[str]:
        return {"first"} if values else {"counts"} if counts_scale else set()


def gaps_of(block: Entries) -> tuple[Tensor, Tensor]:
    """The zeros before each code since the last one of its row, and the bytes that they take."""
    gap = block.column.clone()
    gap[1:] -= torch.where(block.row[1:] == block.row[:-1], block.column[:-1] + 1, 0)
    return gap, gap // GAP + 1


def scale_of_counts(counts: Tensor, unit: int) -> Tensor:
    """The scale that rows have if their codes, all of them ``unit``, add up to one."""
    scale = counts.float().clamp_(min=1).reciprocal_()
    return scale if unit == 1 else scale.div_(unit)


_SIZES = (torch.uint8, torch.int16, torch.int32, torch.int64)


def _narrow(sizes: Tensor) -> Tensor:
    """The same integers in as few bytes as hold them; not uint16, which has no indexing."""
    return sizes.to(narrow_dtype(int(sizes.max()) if sizes.numel() else 0))


def narrow_dtype(highest: int) -> torch.dtype:
    """The smallest of the integers that rows are counted in."""
    return next(d for d in _SIZES if highest <= torch.iinfo(d).max)


def _pointers(sizes: Tensor) -> Tensor:
    pointers = torch.cat([sizes.new_zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    return pointers.int() if int(pointers[-1]) < 2**31 else pointers
