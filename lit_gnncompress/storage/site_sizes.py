"""Sizes of a model's sites, as the bit search needs them, read off ledgers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lit_gnncompress.plan import FULL_PRECISION, Site
from lit_gnncompress.search.space import SiteSize
from lit_gnncompress.storage.ledger import Ledger, LedgerRow


def site_sizes(ledgers: Mapping[int, Ledger], num_buckets: int = 1) -> list[SiteSize]:
    """Sizes of the sites in ``ledgers``.

    Args:
        ledgers: Ledgers of uniform plans, features and attention alike, by their bits, each after
            a forward pass on the same graph. That of 32 bits tells exact sizes. One ledger is
            enough to count as the paper does.
        num_buckets: Degree buckets of these plans.

    Raises:
        ValueError: No ledgers.
    """
    if not ledgers:
        raise ValueError("ledgers is empty: give one, of any uniform plan.")
    by_bits = {bits: _by_site(ledger.rows) for bits, ledger in ledgers.items()}
    first = next(iter(by_bits.values()))
    sizes = []
    for site, rows in first.items():
        elements = _buckets([(row, row.rows * row.width) for row in rows], num_buckets)
        stored = {}
        for bits, sites in by_bits.items():
            kept = [
                (row, row.bytes_lossless if bits == FULL_PRECISION else row.bytes_real)
                for row in sites.get(site, [])
            ]
            # Senders and receivers of a site may be told apart under one plan and not another.
            bytes_of = _buckets(kept, num_buckets)
            if len(bytes_of) == len(elements):
                stored[bits] = bytes_of
        sizes.append(SiteSize(site, elements, stored))
    return sizes


def _by_site(rows: Iterable[LedgerRow]) -> dict[Site, list[LedgerRow]]:
    sites: dict[Site, list[LedgerRow]] = {}
    for row in rows:
        site = Site(row.site, row.component)  # type: ignore[arg-type]
        sites.setdefault(site, []).append(row)
    return sites


def _buckets(values: list[tuple[LedgerRow, int]], num_buckets: int) -> tuple[int, ...]:
    """Sums by bucket: the rows of one matrix after another, each from the lowest degrees up."""
    if num_buckets == 1 or any(not row.degrees for row, _ in values):
        return (sum(value for _, value in values),)
    return tuple(
        sum(value for _, value in values[bucket::num_buckets]) for bucket in range(num_buckets)
    )
