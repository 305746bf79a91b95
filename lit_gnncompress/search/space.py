"""The space of plans: what can be chosen, and how many bytes each choice takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from lit_gnncompress.plan import COMPONENTS, FULL_PRECISION, BitPlan, Site, near_matches

Group = Literal["auto", "bucket", "site", "layer", "component", "all"]
Count = Literal["paper", "stored"]
Point = tuple[int, ...]
"""Bits of each dimension of a space."""

_AUTO_DIMENSIONS = 24  # above, a few dozen trials tell little about any one of them
_TIE = 0.01  # weight of all bytes in the order of plans: the paper's count leaves out attention


@dataclass(frozen=True)
class SiteSize:
    """Size of a site, read off one forward pass.

    Attributes:
        site: The site.
        elements: Values (rows × width) in each degree bucket; a single number where rows have no
            buckets.
        stored: Bytes of each bucket that must be kept, by bits, where they are known: codes,
            ranges. At 32 bits it is the smallest exact size. Bits that are missing are counted
            as ``elements × bits / 8``.
    """

    site: Site
    elements: tuple[int, ...]
    stored: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def exact_is_smaller(self) -> bool:
        """Whether the input is known and has an exact form that is smaller than fp32."""
        exact = self.stored.get(FULL_PRECISION)
        return exact is not None and sum(exact) < 4 * sum(self.elements)

    def bytes_of(self, bits: int, bucket: int) -> float:
        """Bytes that must be kept of a bucket."""
        if bits in self.stored:
            return self.stored[bits][bucket]
        return self.elements[bucket] * bits / 8


@dataclass(frozen=True)
class Dimension:
    """What is chosen together.

    Attributes:
        name: For people.
        members: Places in the space's sites, and degree buckets of them.
        choices: Bits, ascending.
    """

    name: str
    members: tuple[tuple[int, int], ...]
    choices: tuple[int, ...]


class Space:
    """All plans over some bits, for the sites of a model.

    Args:
        sites: Sizes of the sites, features and attention. Sites that are missing stay at 32 bits.
        bits: Bits to choose from, 1 to 8, or 32 for untouched.
        attention_bits: Those of attention where it is chosen by itself, which it is but in the
            groups ``"layer"`` and ``"all"``; the same as ``bits`` if ``None``.
        group: What is chosen together. ``"bucket"``: nothing, each degree bucket of each site is a
            dimension of the space; ``"site"``: the buckets of a site; ``"layer"``: features and
            attention of a layer; ``"component"``: all features, and all attention; ``"all"``.
            ``"auto"`` takes the first of these that has at most 24 dimensions, or ``"all"``.
        degree_splits: Degrees between the buckets, as in :class:`~lit_gnncompress.plan.BitPlan`.
        degree_quantiles: The same as fractions of the nodes.
        count: What a saving counts. ``"paper"``: codes of features, as SGQuant's tables do;
            attention decides between plans that are equal otherwise. ``"stored"``: all that must
            be kept. An input that has an exact form smaller than fp32 then has 32 bits among its
            choices, which stand for that form.

    Attributes:
        sites: The sites.
        dimensions: The dimensions.

    Raises:
        ValueError: No sites, bits that no plan can have, an unknown ``group`` or ``count``, or
            sites whose numbers of buckets do not fit the splits.

    Example:
        >>> sizes = [SiteSize(Site("conv", "features"), (100,))]
        >>> space = Space(sizes, bits=(2, 8))
        >>> space.plan((2,)).features, space.saving((2,))
        ({'conv': 2}, 16.0)
    """

    def __init__(
        self,
        sites: Sequence[SiteSize],
        bits: Sequence[int] = (1, 2, 4, 8),
        group: Group = "auto",
        degree_splits: Sequence[int] = (),
        degree_quantiles: Sequence[float] = (),
        count: Count = "paper",
        attention_bits: Sequence[int] | None = None,
    ) -> None:
        check_choice("group", group, get_args(Group))
        check_choice("count", count, get_args(Count))
        self.bits = checked_bits(bits)
        own = self.bits if attention_bits is None else attention_bits
        self.attention_bits = checked_bits(own, "attention_bits")
        self.sites = tuple(sites)
        self.count = count
        self._buckets = BitPlan(degree_splits=degree_splits, degree_quantiles=degree_quantiles)
        if not self.sites:
            raise ValueError("sites is empty: the model has nothing to give bits to.")
        for size in self.sites:
            if len(size.elements) not in (1, self._buckets.num_buckets):
                raise ValueError(
                    f"{size.site.name}: {len(size.elements)} buckets, but the space has "
                    f"{self._buckets.num_buckets}. Give the degree_splits that the sizes were "
                    f"read under."
                )
        self.dimensions = self._dimensions(group)
        self._fill_tables()

    # --- dimensions -------------------------------------------------------------------------

    def _dimensions(self, group: Group) -> tuple[Dimension, ...]:
        if group != "auto":
            return tuple(self._grouped(group))
        for finest in ("bucket", "site", "layer", "component", "all"):
            found = tuple(self._grouped(finest))  # type: ignore[arg-type]
            if len(found) <= _AUTO_DIMENSIONS:
                break
        return found

    def _grouped(self, group: Group) -> Iterator[Dimension]:
        members: dict[str, list[tuple[int, int]]] = {}
        for place, size in enumerate(self.sites):
            site = size.site
            for bucket in range(len(size.elements)):
                several = group == "bucket" and len(size.elements) > 1
                name = {
                    "bucket": f"{site.name} {site.component}",
                    "site": f"{site.name} {site.component}",
                    "layer": site.name,
                    "component": site.component,
                    "all": "all",
                }[group] + (f", bucket {bucket}" if several else "")
                members.setdefault(name, []).append((place, bucket))
        for name, places in members.items():
            exact = self.count == "stored" and all(
                self.sites[place].exact_is_smaller for place, _ in places
            )
            alone = all(self.sites[place].site.component == "attention" for place, _ in places)
            own = self.attention_bits if alone else self.bits
            choices = sorted({*own, *([FULL_PRECISION] if exact else [])})
            yield Dimension(name, tuple(places), tuple(choices))

    def _fill_tables(self) -> None:
        """Bytes of each dimension by its choices: counted, and all that must be kept."""
        self._counted: list[dict[int, float]] = []
        self._stored: list[dict[int, float]] = []
        for dimension in self.dimensions:
            features = [
                (place, bucket)
                for place, bucket in dimension.members
                if self.sites[place].site.component == "features"
            ]
            elements = sum(self.sites[place].elements[bucket] for place, bucket in features)
            stored = {
                bits: float(sum(self.sites[p].bytes_of(bits, b) for p, b in dimension.members))
                for bits in dimension.choices
            }
            paper = {bits: elements * bits / 8 for bits in dimension.choices}
            self._stored.append(stored)
            self._counted.append(stored if self.count == "stored" else paper)
        counted = [
            size
            for size in self.sites
            if self.count == "stored" or size.site.component == "features"
        ]
        self.bytes_fp32 = 4 * sum(sum(size.elements) for size in counted)
        self._all_fp32 = 4 * sum(sum(size.elements) for size in self.sites)

    @property
    def by_site(self) -> list[list[int]]:
        """Dimensions of the same site, or sites, together: the buckets of each."""
        together: dict[frozenset[int], list[int]] = {}
        for place, dimension in enumerate(self.dimensions):
            together.setdefault(frozenset(s for s, _ in dimension.members), []).append(place)
        return list(together.values())

    @property
    def num_plans(self) -> int:
        """Number of plans."""
        return math.prod(len(dimension.choices) for dimension in self.dimensions)

    def points(self) -> Iterator[Point]:
        """All points; look at :attr:`num_plans` first."""
        return itertools.product(*(dimension.choices for dimension in self.dimensions))

    # --- plans ------------------------------------------------------------------------------

    def plan(self, point: Sequence[int]) -> BitPlan:
        """The plan of a point.

        Raises:
            ValueError: Bits that are not among the choices of a dimension.
        """
        self.check(point)
        spent = [[FULL_PRECISION] * len(size.elements) for size in self.sites]
        for bits, dimension in zip(point, self.dimensions, strict=True):
            for place, bucket in dimension.members:
                spent[place][bucket] = int(bits)
        parts: dict[str, dict[str, int | list[int]]] = {name: {} for name in COMPONENTS}
        for size, bits_of in zip(self.sites, spent, strict=True):
            one = bits_of[0] if len(set(bits_of)) == 1 else bits_of
            parts[size.site.component][size.site.name] = one
        return BitPlan(
            parts["features"],  # type: ignore[arg-type]
            parts["attention"] or FULL_PRECISION,  # type: ignore[arg-type]
            self._buckets.degree_splits,
            self._buckets.degree_quantiles,
        )

    def point(self, plan: BitPlan) -> Point:
        """The point of a plan; for bits that are no choice, the next higher one.

        Raises:
            ValueError: A plan with other buckets, or one that does not fit the sites.
        """
        table = plan.resolve([size.site for size in self.sites])
        same = (
            plan.degree_splits == self._buckets.degree_splits
            and plan.degree_quantiles == self._buckets.degree_quantiles
        )
        if plan.num_buckets > 1 and not same:
            raise ValueError(
                f"The plan has {plan.num_buckets} degree buckets, split at "
                f"{list(plan.degree_splits or plan.degree_quantiles)}; those of the space are "
                f"split at {list(self._buckets.degree_splits or self._buckets.degree_quantiles)}."
            )
        point = []
        for dimension in self.dimensions:
            wanted = 0
            for place, bucket in dimension.members:
                bits = table[self.sites[place].site]
                # A site without buckets takes what its most demanding rows are given.
                several = len(bits) > 1 and len(self.sites[place].elements) > 1
                wanted = max(wanted, bits[bucket] if several else max(bits))
            enough = [bits for bits in dimension.choices if bits >= wanted]
            point.append(enough[0] if enough else dimension.choices[-1])
        return tuple(point)

    def check(self, point: Sequence[int]) -> None:
        """Refuses what is no point of the space.

        Raises:
            ValueError: A wrong length, or bits that are not among the choices.
        """
        if len(point) != len(self.dimensions):
            raise ValueError(
                f"{list(point)} has {len(point)} numbers for the {len(self.dimensions)} "
                f"dimensions of the space."
            )
        for bits, dimension in zip(point, self.dimensions, strict=True):
            if bits not in dimension.choices:
                raise ValueError(
                    f"{dimension.name}: {bits} bits are none of {list(dimension.choices)}."
                )

    def uniform(self, bits: int) -> Point:
        """The same bits everywhere, or the next higher choice."""
        return self.point(BitPlan.uniform(bits, bits if self._has_attention else None))

    @property
    def _has_attention(self) -> bool:
        return any(size.site.component == "attention" for size in self.sites)

    def random(self, rng: np.random.Generator, count: int) -> list[Point]:
        """Points drawn uniformly, with repetition."""
        columns = [rng.choice(d.choices, size=count).tolist() for d in self.dimensions]
        return list(zip(*columns, strict=True))

    # --- bytes ------------------------------------------------------------------------------

    def num_bytes(self, point: Sequence[int]) -> int:
        """Bytes of a plan, by the space's count."""
        return math.ceil(_total(self._counted, point))

    def saving(self, point: Sequence[int]) -> float:
        """fp32 over the bytes of a plan, by the space's count."""
        return self.bytes_fp32 / max(1.0, _total(self._counted, point))

    def merit(self, point: Sequence[int]) -> float:
        """What a search maximizes: the logarithm of the saving, with all bytes to break ties."""
        everything = self._all_fp32 / max(1.0, _total(self._stored, point))
        return math.log(self.saving(point)) + _TIE * math.log(everything)

    def features(self, points: Sequence[Point]) -> np.ndarray:
        """What a cost model sees of plans: float64, shape ``(len(points), D + 1)``.

        The levels of bits (their logarithm to base 2) of the D dimensions, and the logarithm of
        the saving.
        """
        bits = np.log2(np.array(points, dtype=np.float64).reshape(-1, len(self.dimensions)))
        savings = np.log([self.saving(point) for point in points])
        return np.column_stack([bits, savings])

    # --- text -------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What tells this space from another, as plain values."""
        buckets = self._buckets.to_dict()
        return {
            "sites": [[*size.site, list(size.elements)] for size in self.sites],
            "dimensions": [
                [[list(member) for member in d.members], list(d.choices)] for d in self.dimensions
            ],
            "bytes": [list(table.values()) for table in self._counted],
            "count": self.count,
            **buckets,
        }


def _total(tables: Sequence[Mapping[int, float]], point: Sequence[int]) -> float:
    return sum(table[bits] for table, bits in zip(tables, point, strict=True))


def checked_bits(bits: Sequence[int], argument: str = "bits") -> tuple[int, ...]:
    """Bits to choose from, ascending.

    Raises:
        ValueError: An empty list, or bits that no plan can have.
        TypeError: Bits that are not integers.
    """
    if not bits:
        raise ValueError(f"{argument} is empty: list what can be chosen, for instance (4, 8).")
    for value in bits:
        BitPlan(features=value)  # checks it
    return tuple(sorted({int(value) for value in bits}))


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Refuses a value that is no choice.

    Raises:
        ValueError: Naming the choices.
    """
    if value not in choices:
        raise ValueError(
            f"{argument}={value!r} is none of {', '.join(choices)}."
            f"{near_matches(str(value), choices)}"
        )
