"""What every codec can do."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_gnncompress.kernels import Adjacency, aggregate
from lit_gnncompress.kernels.layout import check_index, check_scale


class Codec(ABC):
    """Rows of codes with one number of bits; the value of code ``q`` is ``lo + scale * q``.

    Nothing can write to one. Ranges are of all rows, of each row, or of each column; one range is
    kept where all are equal, and a ``lo`` of zero is not kept.

    Args:
        parts: The tensors that are kept, ``lo`` and ``scale`` among them where they are.
        num_rows: Number of rows, ``N``.
        width: Number of columns, ``F``.
        bits: Bits of a code.
        by_column: Whether ``lo`` and ``scale`` are of columns.
        thorough: Whether to read all ranges; otherwise those of rows or columns are
            kept as they are.

    Raises:
        ValueError: Ranges that do not fit the rows, that are not finite, or with max < min.
    """

    name: ClassVar[str]
    """What it is called in files and in print."""

    _KINDS: ClassVar[dict[str, type[Codec]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in cls.__dict__:
            Codec._KINDS[cls.name] = cls

    def __init__(
        self,
        parts: dict[str, Tensor],
        num_rows: int,
        width: int,
        bits: int,
        by_column: bool,
        thorough: bool = True,
    ) -> None:
        self.num_rows, self.width, self.bits = num_rows, width, bits
        parts = dict(parts)
        ranges = {key: parts[key].detach() for key in ("lo", "scale") if key in parts}
        for key, ends in ranges.items():
            _check_range(key, ends, width if by_column else num_rows, by_column)
            if not thorough and ends.numel() > 1:
                continue
            if ends.numel() == 0:  # of no rows
                ends = ends.new_ones(1) if key == "scale" else ends.new_zeros(1)
            least, most = _least_and_most(key, ends)
            parts[key] = ends[:1].clone() if least == most else ends
            if key == "lo" and least == most == 0:
                del parts[key]
        self.by_column = by_column and any(parts[k].numel() > 1 for k in ranges if k in parts)
        self._parts = parts

    # --- what is kept ---------------------------------------------------------------------------

    @property
    def lo(self) -> Tensor:
        """Value of code 0, float32, shape ``(1,)``, ``(N,)``, or ``(F,)`` if ``by_column``."""
        kept = self._parts.get("lo")
        return torch.zeros(1, device=self.device, dtype=torch.float32) if kept is None else kept

    @property
    def scale(self) -> Tensor:
        """Distance of two codes, float32, shape ``(1,)``, ``(N,)``, or ``(F,)``."""
        kept = self._parts.get("scale")
        return torch.ones(1, device=self.device, dtype=torch.float32) if kept is None else kept

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is kept, in memory or a file: codes, pointers, ranges."""
        return _bytes(self._parts)

    @property
    def range_bytes(self) -> int:
        """Bytes of the ranges among :attr:`nbytes`."""
        return _bytes({key: self._parts[key] for key in ("lo", "scale") if key in self._parts})

    @property
    def device(self) -> torch.device:
        """Where the codes are."""
        return next(iter(self._parts.values())).device

    def to(self, device: torch.device | str) -> Codec:
        """The same on another device."""
        return self._with({key: part.to(device) for key, part in self._parts.items()})

    # --- what layers need -----------------------------------------------------------------------

    @abstractmethod
    def codes(self) -> Tensor:
        """All codes, uint8, shape ``(N, F)``."""

    def gather(self, index: Tensor | None = None) -> Tensor:
        """The values of rows, found without reading any other.

        Args:
            index: Rows to take, int64 or int32, shape ``(M,)``; all rows if ``None``.

        Returns:
            float32, shape ``(M, F)``.

        Raises:
            IndexError: An index that is no row.
        """
        if self.by_column:
            return self._gather(index, *self._no_range()).mul_(self.scale).add_(self.lo)
        return self._gather(index, self.lo, self.scale)

    def linear(self, weight: Tensor) -> Tensor:
        """``x @ weight.T``, float32, shape ``(N, O)``; differentiable in ``weight`` ``(O, F)``."""
        if self.by_column:
            rest = (weight * self.lo).sum(1)
            return self._linear(weight * self.scale, *self._no_range()) + rest
        return self._linear(weight, self.lo, self.scale)

    def aggregate(
        self, adjacency: Adjacency, weight: Tensor | None = None, reduce: str = "sum"
    ) -> Tensor:
        """Rows reduced along edges, as :func:`~lit_gnncompress.kernels.packed_aggregate` tells."""
        if not self.by_column:
            return self._aggregate(adjacency, weight, reduce, self.lo, self.scale)
        if reduce == "max" and weight is not None:
            return aggregate(self.gather(), adjacency, weight, reduce)  # weights may be negative
        sums = self._aggregate(adjacency, weight, reduce, *self._no_range())
        heads = 1 if weight is None or weight.dim() == 1 else weight.size(1)
        # What the edges of a target weigh: 1 or 0 for a maximum, so that no edges give no minimum.
        ones = torch.ones(self.num_rows, heads, device=self.device, dtype=torch.float32)
        weights = aggregate(ones, adjacency, weight, reduce)
        return sums * self.scale + weights.repeat_interleave(self.width // heads, 1) * self.lo

    def take(self, index: Tensor) -> Codec:
        """The rows ``index`` (int64 or int32, ``(M,)``), still packed.

        Raises:
            IndexError: An index that is no row.
        """
        check_index(index, self.num_rows, next(iter(self._parts.values())))
        parts = self._take(index)
        for key in ("lo", "scale"):
            if key in self._parts:
                kept = self._parts[key]
                by_row = not self.by_column and kept.numel() > 1
                parts[key] = kept.index_select(0, index) if by_row else kept
        taken = self._with(parts)
        taken.num_rows = index.size(0)
        return taken

    # --- files ----------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """What a file must hold, besides :meth:`meta`; no tensor twice."""
        return dict(self._parts)

    def meta(self) -> dict[str, Any]:
        """Plain numbers and strings: what else :meth:`from_tensors` needs."""
        return {
            "codec": self.name,
            "rows": self.num_rows,
            "width": self.width,
            "bits": self.bits,
            "by_column": self.by_column,
        }

    @staticmethod
    def from_tensors(
        meta: dict[str, Any], tensors: dict[str, Tensor], thorough: bool = True
    ) -> Codec:
        """The inverse of :meth:`meta` and :meth:`tensors`.

        Args:
            meta: As from :meth:`meta`.
            tensors: As from :meth:`tensors`; kept, not copied, where memory has the same form.
            thorough: Whether to read all of them for what does not belong there; otherwise what a
                row has of its own stays on the disk where it is mapped.

        Raises:
            ValueError: An unknown codec, a missing or superfluous tensor, or tensors that do not
                fit each other.
        """
        kind = Codec._KINDS.get(meta.get("codec", ""))
        if kind is None:
            raise ValueError(
                f"codec={meta.get('codec')!r} is none of {', '.join(sorted(Codec._KINDS))}."
            )
        numbers = {}
        for key in ("rows", "width", "bits"):
            number = meta.get(key)
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ValueError(f"{key}={number!r} of a codec must be an integer, 0 or more.")
            numbers[key] = number
        return kind._load(meta, dict(tensors), thorough, **numbers)

    # --- what kinds of codecs tell --------------------------------------------------------------

    @classmethod
    @abstractmethod
    def _load(
        cls,
        meta: dict[str, Any],
        tensors: dict[str, Tensor],
        thorough: bool,
        rows: int,
        width: int,
        bits: int,
    ) -> Codec: ...

    @abstractmethod
    def _gather(self, index: Tensor | None, lo: Tensor, scale: Tensor) -> Tensor: ...

    @abstractmethod
    def _linear(self, weight: Tensor, lo: Tensor, scale: Tensor) -> Tensor: ...

    @abstractmethod
    def _aggregate(
        self, adjacency: Adjacency, weight: Tensor | None, reduce: str, lo: Tensor, scale: Tensor
    ) -> Tensor: ...

    @abstractmethod
    def _take(self, index: Tensor) -> dict[str, Tensor]: ...

    def _with(self, parts: dict[str, Tensor]) -> Codec:
        other = copy.copy(self)
        other._parts = parts
        return other

    def _no_range(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, device=self.device, dtype=torch.float32), torch.ones(
            1, device=self.device, dtype=torch.float32
        )

    def __getstate__(self) -> dict[str, Any]:
        # torch cannot unpickle uint16 by itself.
        parts = {
            key: (part.view(torch.int16), True) if part.dtype == torch.uint16 else (part, False)
            for key, part in self._parts.items()
        }
        return self.__dict__ | {"_parts": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._parts = {
            key: part.view(torch.uint16) if unsigned else part
            for key, (part, unsigned) in state["_parts"].items()
        }

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_rows} × {self.width}, {self.bits} bits, "
            f"{self.nbytes:,} bytes)"
        )


def expect(tensors: dict[str, Tensor], needed: set[str], possible: set[str]) -> None:
    """Refuses a file's tensors if one is missing or superfluous.

    Raises:
        ValueError: Naming it.
    """
    for problem, names in (
        ("missing", needed - tensors.keys()),
        ("unknown", tensors.keys() - needed - possible),
    ):
        if names:
            raise ValueError(f"tensors of the codec: {', '.join(sorted(names))} {problem}.")


def _check_range(name: str, ends: Tensor, size: int, by_column: bool) -> None:
    if ends.dtype != torch.float32 or ends.dim() != 1 or ends.size(0) not in (1, size):
        of = "column" if by_column else "row"
        raise ValueError(
            f"{name} must be float32 of shape (1,) or ({size},), one for each {of}, got "
            f"{ends.dtype} of shape {tuple(ends.shape)}."
        )


def _least_and_most(name: str, ends: Tensor) -> tuple[float, float]:
    """The extremes of ranges, all of which must be finite, and scales not negative."""
    least, most = (end.item() for end in ends.aminmax())  # NaN if any is
    if math.isfinite(least) and math.isfinite(most) and (name != "scale" or least >= 0):
        return least, most
    if name == "scale":
        check_scale(ends)
    place = int((~torch.isfinite(ends)).nonzero()[0, 0])
    raise ValueError(f"{name}[{place}]={float(ends[place])} must be finite.")


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors.values())
