"""Where a search starts: where a good engineer would."""

from __future__ import annotations

from collections.abc import Iterator

from lit_gnncompress.plan import FULL_PRECISION, BitPlan
from lit_gnncompress.search.space import Point, Space


def starting_points(
    space: Space, recipe: BitPlan | None, scanned: int
) -> Iterator[tuple[Point, str]]:
    """Points and their origins, without repetition, in the order in which to measure them.

    First uniform plans from many bits to few, and the recipe, both also with inputs in their exact
    form and with attention untouched where those are choices; then a sensitivity scan: of the plan
    with the highest bits, one site at a time is lowered, the largest first, to the lowest bits;
    then to the second lowest.

    Args:
        space: The space.
        recipe: A plan by hand, if there is one.
        scanned: Plans of the scan at most.
    """
    seen = set()
    for point, origin in _with_repetition(space, recipe):
        if point not in seen:
            seen.add(point)
            yield point, origin
    for point in _scan(space):
        if scanned > 0 and point not in seen:
            seen.add(point)
            scanned -= 1
            yield point, "scan"


def _with_repetition(space: Space, recipe: BitPlan | None) -> Iterator[tuple[Point, str]]:
    for bits in reversed(space.bits):
        yield space.uniform(bits), "uniform"
    for bits in reversed(space.bits):
        yield _untouched(space, space.uniform(bits)), "uniform"
    if recipe is not None:
        yield space.point(recipe), "recipe"
        yield _untouched(space, space.point(recipe)), "recipe"


def _untouched(space: Space, point: Point) -> Point:
    """The point with 32 bits wherever they are a choice."""
    return tuple(
        FULL_PRECISION if FULL_PRECISION in dimension.choices else bits
        for dimension, bits in zip(space.dimensions, point, strict=True)
    )


def _scan(space: Space) -> Iterator[Point]:
    elements = [
        sum(space.sites[place].elements[bucket] for place, bucket in dimension.members)
        for dimension in space.dimensions
    ]
    sites = sorted(space.by_site, key=lambda site: -sum(elements[place] for place in site))
    highest = space.uniform(space.bits[-1])
    for bits in space.bits[:-1]:
        lowest = space.uniform(bits)
        for site in sites:
            point = list(highest)
            for place in site:
                point[place] = lowest[place]
            yield tuple(point)
