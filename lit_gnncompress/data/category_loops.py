"""Hash tables of categories, compiled: open addressing, a power of two of slots, at most half full.

Keys are uint32; a slot whose value is 0 is free.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # spreads neighbouring keys
_HIGH = np.uint64(32)


@njit(cache=True, nogil=True, inline="always")
def _slot(key: Any, keys: Any, values: Any) -> Any:
    """Where the key is, or the free slot where it belongs."""
    mask = np.uint64(len(keys) - 1)
    slot = ((np.uint64(key) * _GOLDEN) >> _HIGH) & mask
    while values[slot] != 0 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def count(categories: Any, begin: int, keys: Any, counts: Any, used: int) -> Any:
    """Counts categories from place ``begin`` on, until the table is half full.

    Returns:
        Where to go on, and how many slots are used.
    """
    for place in range(begin, len(categories)):
        slot = _slot(categories[place], keys, counts)
        if counts[slot] == 0:
            if 2 * used >= len(keys):
                return place, used
            keys[slot] = categories[place]
            used += 1
        counts[slot] += 1
    return len(categories), used


@njit(cache=True, nogil=True)
def move(keys: Any, values: Any, new_keys: Any, new_values: Any) -> None:
    """Copies a table to one of another size."""
    for place in range(len(keys)):
        if values[place] != 0:
            slot = _slot(keys[place], new_keys, new_values)
            new_keys[slot] = keys[place]
            new_values[slot] = values[place]


@njit(cache=True, nogil=True)
def number(categories: Any, keys: Any, numbers: Any) -> None:
    """Gives each of different categories its place from 1 on."""
    for place in range(len(categories)):
        slot = _slot(categories[place], keys, numbers)
        keys[slot] = categories[place]
        numbers[slot] = place + 1


@njit(cache=True, nogil=True)
def look_up(categories: Any, keys: Any, numbers: Any, shared: int) -> None:
    """Replaces categories by rows: ``shared`` ones by their remainder, then the numbered ones."""
    for place in range(len(categories)):
        category = categories[place]
        slot = _slot(category, keys, numbers)
        own = numbers[slot]
        if own > 0:
            categories[place] = shared + own - 1
        else:
            categories[place] = category % shared
