"""PackedTensor: node features that are 1 to 8 bits in memory and flow through PyG's layers."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lit_gnncompress.kernels import Adjacency
from lit_gnncompress.quantization.context import Stored
from lit_gnncompress.storage.codecs import Codec
from lit_gnncompress.storage.deferred import aggregate_rows
from lit_gnncompress.storage.edges import edges_from
from lit_gnncompress.storage.node_rows import Again
from lit_gnncompress.storage.tensor_types import VirtualTensor


class PackedTensor(VirtualTensor):
    """Features ``(N, F)`` whose codes take 1 to 8 bits in memory; :func:`pack` makes it.

    It stands where a float32 matrix stood. Linear layers, products with a matrix or an adjacency,
    PyG's message passing, and the choice of rows work on the codes; any other operation gets the
    dequantized matrix, and warns once, with its name. Entries cannot be written.

    Args:
        blocks: Rows of one degree bucket each, in the order that they have in the matrix.
        bucket: Bucket of each row, uint8 of shape ``(N,)``; ``None`` with one block.

    Attributes:
        again: Gives the same features, where sums of them may wait for later steps; see
            :class:`~lit_gnncompress.storage.deferred.Deferred`.
        lossless: Smallest size of each bucket's rows without loss, where it was looked for.

    Raises:
        ValueError: Blocks that differ in width, or that do not add up to the rows of ``bucket``.
    """

    blocks: tuple[Codec, ...]
    bucket: Tensor | None
    again: Again | None
    lossless: tuple[int, ...] | None
    _place: Tensor | None

    @staticmethod
    def __new__(cls, blocks: Sequence[Codec], bucket: Tensor | None = None) -> PackedTensor:
        """A matrix of the rows of all blocks."""
        blocks = tuple(blocks)
        rows, width = sum(block.num_rows for block in blocks), blocks[0].width
        if any(block.width != width for block in blocks):
            widths = ", ".join(str(block.width) for block in blocks)
            raise ValueError(f"blocks have {widths} columns: all must have as many.")
        if len(blocks) > 1 and (bucket is None or bucket.size(0) != rows):
            found = None if bucket is None else bucket.size(0)
            raise ValueError(f"bucket has {found} entries, but the blocks have {rows} rows.")
        self = cast(PackedTensor, VirtualTensor.__new__(cls, (rows, width), blocks[0].device))
        self.blocks, self.bucket = blocks, bucket if len(blocks) > 1 else None
        self.again, self.lossless, self._place = None, None, None
        return self

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of each degree bucket; 32 for rows that are kept in float32."""
        return tuple(block.bits for block in self.blocks)

    @property
    def packed_bytes(self) -> int:
        """Bytes of all that is kept: codes, pointers, ranges, and the bucket of each row."""
        return sum(block.nbytes for block in self.blocks) + (
            0 if self.bucket is None else self.bucket.numel()
        )

    @property
    def stored(self) -> tuple[Stored, ...]:
        """What each bucket takes, for the ledger."""
        exact = self.lossless or [None] * len(self.blocks)
        return tuple(
            Stored(b.bits, b.num_rows, b.nbytes - b.range_bytes, b.range_bytes, size)
            for b, size in zip(self.blocks, exact, strict=True)
        )

    def dequantize(self) -> Tensor:
        """All entries, float32 of shape ``(N, F)``."""
        return self.gather_rows(None)

    materialize = dequantize

    def before_materializing(self, name: str) -> None:
        """Warns, once for every operation."""
        name = name.strip("_")
        if name not in _WARNED:
            _WARNED.add(name)
            warnings.warn(
                f"{name} has no packed form: all {self.size(0):,} × {self.size(1):,} features are "
                f"dequantized for it. Use x.dequantize() where that is meant.",
                stacklevel=_level_of_caller(),
            )

    # --- what layers ask for --------------------------------------------------------------------

    def gather_rows(self, index: Tensor | None) -> Tensor:
        """Rows ``index`` (all if ``None``), dequantized: float32 of shape ``(M, F)``."""
        if self.bucket is None:
            return self.blocks[0].gather(index)
        bucket, place = self.bucket, self._places()
        if index is not None:
            bucket, place = bucket[index], place[index]
        out = torch.empty(len(bucket), self.size(1), device=self.device, dtype=torch.float32)
        for b, block in enumerate(self.blocks):
            rows = (bucket == b).nonzero().squeeze(1)
            out.index_copy_(0, rows, block.gather(place[rows]))
        return out

    def linear(self, weight: Tensor) -> Tensor:
        """``x @ weight.T`` for a weight ``(O, F)``: float32 of shape ``(N, O)``."""
        weight = weight.float()
        if self.bucket is None:
            return self.blocks[0].linear(weight)
        out = torch.empty(self.size(0), weight.size(0), device=self.device, dtype=torch.float32)
        for b, block in enumerate(self.blocks):
            if block.num_rows:
                out = out.index_copy(0, self._rows_of(b), block.linear(weight))
        return out

    def aggregate_rows(self, adjacency: Adjacency, weight: Tensor | None, reduce: str) -> Tensor:
        """Sends rows along edges, see :func:`lit_gnncompress.kernels.packed_aggregate`."""
        if self.bucket is None:
            return self.blocks[0].aggregate(adjacency, weight, reduce)
        if reduce == "max":  # a maximum over part of the edges is not known to be one
            return aggregate_rows(self.dequantize(), adjacency, weight, reduce)
        out = torch.zeros(
            adjacency.num_targets, self.size(1), device=self.device, dtype=torch.float32
        )
        for block, (part, edges) in zip(self.blocks, self._split(adjacency), strict=True):
            if part.num_edges:
                own = None if weight is None else weight[edges]
                out = out + block.aggregate(part, own, "sum")
        if reduce == "mean":
            out = out / adjacency.degrees.clamp(min=1).unsqueeze(1)
        return out

    def take(self, index: Tensor) -> PackedTensor:
        """The rows ``index`` (int64, ``(M,)``), still packed."""
        if self.bucket is None:
            return PackedTensor([self.blocks[0].take(index)])
        bucket, place = self.bucket[index], self._places()[index]
        blocks = [block.take(place[bucket == b]) for b, block in enumerate(self.blocks)]
        return PackedTensor(blocks, bucket)

    # --- rows and blocks ------------------------------------------------------------------------

    def before_a_site(self) -> PackedTensor:
        """The same codes, of which sums may wait: another site is known to come."""
        same = PackedTensor(self.blocks, self.bucket)
        same.lossless = self.lossless
        same.again = partial(PackedTensor, self.blocks, self.bucket)
        return same

    def _rows_of(self, b: int) -> Tensor:
        assert self.bucket is not None
        return (self.bucket == b).nonzero().squeeze(1)

    def _places(self) -> Tensor:
        """Place of each row in its block, int64 of shape ``(N,)``."""
        if self._place is None:
            assert self.bucket is not None
            place = torch.empty(self.size(0), dtype=torch.int32, device=self.device)
            for b, block in enumerate(self.blocks):
                place[self._rows_of(b)] = torch.arange(
                    block.num_rows, dtype=torch.int32, device=self.device
                )
            self._place = place
        return self._place

    def _split(self, adjacency: Adjacency) -> list[tuple[Adjacency, Tensor]]:
        """The edges from each block's rows, kept for the latest adjacency."""
        known = _SPLITS.get(self)
        if known is None or known.adjacency() is not adjacency:
            bucket, place = self.bucket, self._places()
            assert bucket is not None
            parts = [
                edges_from(adjacency, bucket == b, place, block.num_rows)
                for b, block in enumerate(self.blocks)
            ]
            known = _Split(weakref.ref(adjacency), parts)
            _SPLITS[self] = known
        return known.parts

    # --- as an object ---------------------------------------------------------------------------

    def __repr__(self) -> str:  # type: ignore[override]
        codecs = ", ".join(f"{block.bits} bits {block.name}" for block in self.blocks)
        return (
            f"PackedTensor({self.size(0)} × {self.size(1)}, {codecs}, "
            f"{self.packed_bytes:,} bytes, device={self.device})"
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        return PackedTensor, (self.blocks, self.bucket)

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedTensor:
        return self  # nothing can write to it


class _Split(NamedTuple):
    adjacency: weakref.ref[Adjacency]
    parts: list[tuple[Adjacency, Tensor]]


def _level_of_caller() -> int:
    """How far up the stack of this function's caller is what uses torch, PyG and this library."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _package_of(frame) in _INSIDE:
        frame, level = frame.f_back, level + 1
    return level


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


_INSIDE = ("lit_gnncompress", "torch", "torch_geometric")
_WARNED: set[str] = set()
_SPLITS = WeakIdKeyDictionary()
