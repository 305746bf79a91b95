"""Loops that move nodes between parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_MOST_ROUNDS = 10


@njit(cache=True, nogil=True)
def attract(
    start: Any, neighbor: Any, weight: Any, kind: Any, part: Any, room: Any, order: Any
) -> None:
    """Moves each node to the part of most of its neighbours, if there is room.

    Args:
        start: Rows of the graph.
        neighbor: Other ends.
        weight: Of the edges, or empty.
        kind: Kind of each node; parts have room for each kind.
        part: Part of each node, changed in place.
        room: Places left, int64, shape ``(kinds, parts)``, changed in place.
        order: In which nodes are asked.
    """
    pull = np.zeros(room.shape[1], np.float64)
    for _ in range(_MOST_ROUNDS):
        moved = 0
        for this in order:
            own = part[this]
            for slot in range(start[this], start[this + 1]):
                pull[part[neighbor[slot]]] += weight[slot] if len(weight) else 1
            best = pull[own]
            goal = own
            for slot in range(start[this], start[this + 1]):
                there = part[neighbor[slot]]
                if pull[there] > best and room[kind[this], there] > 0:
                    best, goal = pull[there], there
            for slot in range(start[this], start[this + 1]):
                pull[part[neighbor[slot]]] = 0
            if goal != own:
                room[kind[this], own] += 1
                room[kind[this], goal] -= 1
                part[this] = goal
                moved += 1
        if moved * 100 <= len(order):
            return


@njit(cache=True, nogil=True)
def relieve(
    start: Any, neighbor: Any, weight: Any, kind: Any, part: Any, room: Any, order: Any
) -> None:
    """Moves nodes out of parts that are too full, those first that lose least by it.

    Args:
        start: Rows of the graph.
        neighbor: Other ends.
        weight: Of the edges, or empty.
        kind: Kind of each node; parts have room for each kind.
        part: Part of each node, changed in place.
        room: Places left, int64, shape ``(kinds, parts)``, negative where a part is too full;
            changed in place.
        order: In which order nodes of equal loss go.
    """
    parts = room.shape[1]
    loss = np.empty(len(part), np.float64)
    pull = np.zeros(parts, np.float64)
    for this in order:
        own = part[this]
        loss[this] = 0
        if room[kind[this], own] >= 0:
            continue
        best = 0.0
        inside = 0.0
        for slot in range(start[this], start[this + 1]):
            there = part[neighbor[slot]]
            value = weight[slot] if len(weight) else 1
            if there == own:
                inside += value
            elif room[kind[this], there] > 0:
                pull[there] += value
                best = max(best, pull[there])
        for slot in range(start[this], start[this + 1]):
            pull[part[neighbor[slot]]] = 0
        loss[this] = inside - best
    for this in order[np.argsort(loss[order], kind="mergesort")]:
        own, sort = part[this], kind[this]
        if room[sort, own] >= 0:
            continue
        best = 0.0
        goal: Any = -1
        for slot in range(start[this], start[this + 1]):
            there = part[neighbor[slot]]
            if room[sort, there] > 0:
                pull[there] += weight[slot] if len(weight) else 1
                if pull[there] > best or (pull[there] == best and there < goal):
                    best, goal = pull[there], there
        for slot in range(start[this], start[this + 1]):
            pull[part[neighbor[slot]]] = 0
        if goal < 0:
            goal = np.argmax(room[sort])
        room[sort, own] += 1
        room[sort, goal] -= 1
        part[this] = goal


@njit(cache=True, nogil=True)
def exchange(
    start: Any,
    neighbor: Any,
    weight: Any,
    kind: Any,
    leaf: Any,
    held: Any,
    first: Any,
    size: Any,
    spans: Any,
    order: Any,
) -> None:
    """Lets nodes change places while more neighbours come to be in the same parts.

    A node goes to the leaf, among those of its neighbours, where most edges agree, over all levels;
    there it takes a free place, or that of the node which loses least, if both together gain.

    Args:
        start: Rows of the graph.
        neighbor: Other ends.
        weight: Of the edges, or empty.
        kind: Kind of each node; only nodes of one kind change places.
        leaf: Part of the last level of each node, changed in place.
        held: Node in each place, -1 where it is free, changed in place. The places of a kind come
            one after the other, by leaf.
        first: Where the places of each kind begin.
        size: Places of each kind in a leaf.
        spans: Leaves in a part of each level, ending with 1.
        order: In which nodes are asked.
    """
    where = np.empty(len(leaf), np.int64)
    for place in range(len(held)):
        if held[place] >= 0:
            where[held[place]] = place
    kept = np.zeros(len(leaf), np.float64)  # what each node has of its neighbours
    for this in range(len(leaf)):
        kept[this] = _score(start, neighbor, weight, leaf, spans, this, leaf[this])
    num_leaves = (first[1] - first[0]) // size[0]
    pull = np.zeros((len(spans), num_leaves), np.float64)
    for _ in range(_MOST_ROUNDS):
        exchanged = 0
        for this in order:
            here = leaf[this]
            for slot in range(start[this], start[this + 1]):
                there = leaf[neighbor[slot]]
                value = weight[slot] if len(weight) else 1
                for level in range(len(spans)):
                    pull[level, there // spans[level]] += value
            best = kept[this]
            goal = -1
            for slot in range(start[this], start[this + 1]):
                there = leaf[neighbor[slot]]
                if there != here and there != goal:
                    score = 0.0
                    for level in range(len(spans)):
                        score += pull[level, there // spans[level]]
                    if score > best:
                        best, goal = score, there
            for slot in range(start[this], start[this + 1]):
                there = leaf[neighbor[slot]]
                for level in range(len(spans)):
                    pull[level, there // spans[level]] = 0
            if goal < 0:
                continue
            sort = kind[this]
            begin = first[sort] + goal * size[sort]
            place = begin
            least = np.inf
            for each in range(begin, begin + size[sort]):
                loss = kept[held[each]] if held[each] >= 0 else -1.0
                if loss < least:
                    least, place = loss, each
            other = held[place]
            if other >= 0:
                gain = best - kept[this] - kept[other]
                gain += _score(start, neighbor, weight, leaf, spans, other, here)
                # Both scores count the edge between the two as if it would agree.
                apart = len(spans) - _levels(spans, here, goal)
                gain -= 2 * apart * _between(start, neighbor, weight, this, other)
                if gain <= 1e-9 * best:
                    continue
            held[where[this]] = other
            if other >= 0:
                where[other] = where[this]
                _move(start, neighbor, weight, leaf, spans, kept, other, here)
            held[place] = this
            where[this] = place
            _move(start, neighbor, weight, leaf, spans, kept, this, goal)
            exchanged += 1
        if exchanged * 200 <= len(order):
            return


@njit(cache=True, nogil=True)
def _levels(spans: Any, a: Any, b: Any) -> Any:
    """Levels on which two leaves are in the same part."""
    same = 0
    for span in spans:
        same += a // span == b // span
    return same


@njit(cache=True, nogil=True)
def _score(
    start: Any, neighbor: Any, weight: Any, leaf: Any, spans: Any, node: Any, there: Any
) -> Any:
    """What a node would have of its neighbours in a leaf."""
    score = 0.0
    for slot in range(start[node], start[node + 1]):
        value = weight[slot] if len(weight) else 1
        score += value * _levels(spans, there, leaf[neighbor[slot]])
    return score


@njit(cache=True, nogil=True)
def _between(start: Any, neighbor: Any, weight: Any, a: Any, b: Any) -> Any:
    """Weight of the edge between two nodes."""
    for slot in range(start[a], start[a + 1]):
        if neighbor[slot] == b:
            return weight[slot] if len(weight) else 1
    return 0


@njit(cache=True, nogil=True)
def _move(
    start: Any, neighbor: Any, weight: Any, leaf: Any, spans: Any, kept: Any, node: Any, goal: Any
) -> None:
    """Moves a node, and says so to its neighbours."""
    before = leaf[node]
    leaf[node] = goal
    total = 0.0
    for slot in range(start[node], start[node + 1]):
        other = neighbor[slot]
        value = weight[slot] if len(weight) else 1
        now = _levels(spans, goal, leaf[other])
        kept[other] += value * (now - _levels(spans, before, leaf[other]))
        total += value * now
    kept[node] = total
