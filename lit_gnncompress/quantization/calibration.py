"""Ranges that a layer keeps for later batches: joined over those of a validation, and stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_gnncompress.quantization.degrees import DegreeBuckets
from lit_gnncompress.quantization.ranges import CalibratedRange, Granularity, Range

SiteRanges = list[list[CalibratedRange | None]]
"""Ranges of one layer: by call in a forward pass, then of senders and of receivers. ``None`` stands
for features that need none."""


@dataclass(frozen=True, eq=False)
class KnownRange:
    """A range, and which degree buckets it was found in.

    Attributes:
        range: The range.
        present: bool, shape ``(B,)``: the buckets that had rows.
    """

    range: CalibratedRange
    present: Tensor

    @classmethod
    def of(
        cls, found: Range, buckets: DegreeBuckets | None, granularity: Granularity
    ) -> KnownRange:
        """What of a range, which was found with this ``granularity``, serves other rows."""
        present, range = torch.ones_like(found.by_row), found.calibrated(buckets)
        if buckets is not None and len(present) > 1:
            present = buckets.counts() > 0
        if granularity == "tensor":  # that of a single row looks like one of its bucket
            range = range._replace(lo=range.lo[:1], hi=range.hi[:1])
        return cls(range, present)

    @classmethod
    def stored(cls, range: CalibratedRange) -> KnownRange:
        """One that was found earlier."""
        return cls(range, torch.ones_like(range.by_row))

    def joined(self, other: KnownRange) -> KnownRange:
        """From the lower minimum to the higher maximum, whichever was found first.

        Buckets whose rows have ranges of their own in one of the two have them in both.
        """
        a, b = self.range, other.range
        if a.lo.size(1) != b.lo.size(1):
            return other  # a layer that takes features of any width
        here, there = self._of_ends(), other._of_ends()
        lo, hi = torch.minimum(a.lo, b.lo), torch.maximum(a.hi, b.hi)
        for alone, own in ((here & ~there, a), (there & ~here, b)):
            # A bucket without rows has got the range of others.
            lo, hi = torch.where(alone, own.lo, lo), torch.where(alone, own.hi, hi)
        present = self.present | other.present
        by_row = (a.by_row & self.present) | (b.by_row & other.present)
        by_row = torch.where(present, by_row, a.by_row | b.by_row)
        return KnownRange(CalibratedRange(lo, hi, by_row), present)

    def _of_ends(self) -> Tensor:
        """The buckets that had rows, in the shape of minima and maxima."""
        if len(self.range.lo) == len(self.present):
            return self.present.unsqueeze(1)
        return self.present.any().view(1, 1)


class KnownRanges:
    """The ranges of one layer, by where they were found.

    A place is the number of a call in a forward pass, and which of its features: of senders, or of
    receivers.

    Args:
        calls: Ranges that were found earlier.
    """

    def __init__(self, calls: SiteRanges | None = None) -> None:
        self._by_place = {
            (number, place): KnownRange.stored(found)
            for number, call in enumerate(calls or [])
            for place, found in enumerate(call)
            if found is not None
        }

    @property
    def calls(self) -> SiteRanges:
        """All of them, by call."""
        calls: SiteRanges = []
        for (number, place), known in sorted(self._by_place.items(), key=lambda item: item[0]):
            calls += [[] for _ in range(number + 1 - len(calls))]
            calls[number] += [None] * (place - len(calls[number])) + [known.range]
        return calls

    def find(self, place: tuple[int, int], width: int) -> KnownRange | None:
        """What is known of a place, for features of some width."""
        known = self._by_place.get(place)
        if known is not None and known.range.lo.size(1) not in (1, width):
            return None  # a layer that takes features of any width
        return known

    def keep(self, place: tuple[int, int], found: KnownRange, join: bool) -> None:
        """Takes in a range: joined with the one that is known, or in place of it."""
        known = self._by_place.get(place)
        self._by_place[place] = known.joined(found) if join and known is not None else found


def to_plain(ranges: Mapping[str, SiteRanges]) -> dict[str, list[Any]]:
    """Ranges by layer as plain lists, for JSON and checkpoints.

    A layer that is called once has a list of its ranges, of senders and of receivers; another has
    a list of such lists, one for each call.
    """
    plain = {}
    for name, calls in ranges.items():
        by_call: list[Any] = [[one and one.to_dict() for one in call] for call in calls]
        plain[name] = by_call[0] if len(by_call) == 1 else by_call
    return plain


def from_plain(plain: Mapping[str, list[Any]]) -> dict[str, SiteRanges]:
    """The inverse of :func:`to_plain`.

    Raises:
        ValueError: Something else than ranges.
    """
    ranges = {}
    for name, found in plain.items():
        calls = found if any(isinstance(each, list) for each in found) else [found]
        ranges[name] = [
            [None if one is None else CalibratedRange.from_dict(one) for one in call]
            for call in calls
        ]
    return ranges
