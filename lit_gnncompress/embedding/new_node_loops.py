"""The loop that finds places for new nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def place_new(
    start: Any,
    neighbor: Any,
    weight: Any,
    spans: Any,
    first: Any,
    room: Any,
    place: Any,
    known: int,
) -> None:
    """Fills in the places that are -1, see ``new_nodes``.

    Args:
        start: Rows of the graph.
        neighbor: Other ends.
        weight: Of the edges, or empty.
        spans: Places of a part of each level; level 0 is the whole table, the last one a place.
        first: Where the parts of level ``1 …`` begin in ``room``.
        room: Free places of each part.
        place: Of each node, changed in place.
        known: Number of nodes that have a place.
    """
    nodes = len(place)
    queue = np.empty(nodes - known, np.int64)
    queued = np.zeros(nodes, np.bool_)
    length = 0
    for this in range(known, nodes):
        for slot in range(start[this], start[this + 1]):
            queued[this] |= place[neighbor[slot]] >= 0
        if queued[this]:
            queue[length] = this
            length += 1
    head = 0
    next_node = known
    while head < len(queue):
        if head == length:  # no placed node is near to any other: the next one
            while queued[next_node]:
                next_node += 1
            queue[length] = next_node
            queued[next_node] = True
            length += 1
        this = queue[head]
        head += 1
        others = neighbor[start[this] : start[this + 1]]
        there = place[others]
        by_place = np.argsort(there, kind="mergesort")
        part = 0
        for level in range(1, len(spans)):
            begin = first[level - 1]
            goal = -1
            best = 0.0
            pull = 0.0
            last = -1
            for i in by_place:
                if there[i] < 0 or there[i] // spans[level - 1] != part:
                    continue
                child = there[i] // spans[level]
                if child != last:
                    pull, last = 0.0, child
                pull += weight[start[this] + i] if len(weight) else 1
                if pull > best and room[begin + child] > 0:
                    best, goal = pull, child
            if goal < 0:  # no neighbour where there is room
                count = spans[level - 1] // spans[level]
                here = room[begin + part * count : begin + (part + 1) * count]
                goal = part * count + np.argmax(here)
            room[begin + goal] -= 1
            part = goal
        place[this] = part
        for other in others:
            if not queued[other] and other >= known:
                queue[length] = other
                queued[other] = True
                length += 1
