"""Loops over edges, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_MOST_ROUNDS = 20


@njit(cache=True, nogil=True)
def count_neighbors(source: Any, target: Any, start: Any) -> None:
    """Adds up in ``start`` where the rows of both ends of each edge begin; loops do not count."""
    for edge in range(len(source)):
        if source[edge] != target[edge]:
            start[source[edge] + 1] += 1
            start[target[edge] + 1] += 1
    for node in range(1, len(start)):
        start[node] += start[node - 1]


@njit(cache=True, nogil=True)
def fill_neighbors(
    source: Any, target: Any, weight: Any, free: Any, neighbor: Any, strength: Any
) -> None:
    """Puts each end of each edge into the row of the other; ``weight`` may be empty."""
    for edge in range(len(source)):
        a, b = source[edge], target[edge]
        if a != b:
            neighbor[free[a]] = b
            neighbor[free[b]] = a
            if len(weight):
                strength[free[a]] = weight[edge]
                strength[free[b]] = weight[edge]
            free[a] += 1
            free[b] += 1


@njit(cache=True, nogil=True)
def transpose_and_merge(
    start: Any, neighbor: Any, strength: Any, end: Any, merged: Any, total: Any
) -> None:
    """The transposed rows, which are sorted, with one entry for entries of the same neighbor.

    A symmetric graph is its own transpose. ``end`` begins as a copy of ``start`` and becomes where
    the merged rows end; weights of merged entries are added up in ``total``.
    """
    for node in range(len(start) - 1):
        for slot in range(start[node], start[node + 1]):
            other = neighbor[slot]
            last = end[other]
            if last > start[other] and merged[last - 1] == node:
                if len(strength):
                    total[last - 1] += strength[slot]
                continue
            merged[last] = node
            if len(strength):
                total[last] = strength[slot]
            end[other] = last + 1


@njit(cache=True, nogil=True)
def close_gaps(
    start: Any, end: Any, merged: Any, total: Any, packed: Any, out: Any, weights: Any
) -> None:
    """Copies rows ``start`` to ``end`` one behind the other, to ``packed`` places in ``out``."""
    for node in range(len(end)):
        shift = packed[node] - start[node]
        for slot in range(start[node], end[node]):
            out[slot + shift] = merged[slot]
            if len(weights):
                weights[slot + shift] = total[slot]


@njit(cache=True, nogil=True)
def count_inner(start: Any, neighbor: Any, part: Any, node: Any, inner: Any) -> None:
    """Fills ``inner`` with where rows of edges inside parts begin; rows are in order ``node``."""
    slots = 0
    for row in range(len(node)):
        this = node[row]
        for slot in range(start[this], start[this + 1]):
            slots += part[neighbor[slot]] == part[this]
        inner[row + 1] = slots


@njit(cache=True, nogil=True)
def fill_inner(
    start: Any,
    neighbor: Any,
    weight: Any,
    part: Any,
    node: Any,
    rank: Any,
    first: Any,
    out: Any,
    out_weight: Any,
) -> None:
    """Fills ``out`` with the ends of edges inside parts, numbered from 0 in each part.

    Args:
        start: Rows of the graph, shape ``(N + 1,)``.
        neighbor: Other ends.
        weight: Of the edges, or empty.
        part: Of each node.
        node: The nodes by part.
        rank: Where each node is among them.
        first: Where each part begins among them.
        out: Filled with other ends.
        out_weight: Filled with their weights.
    """
    new = 0
    for this in node:
        begin = first[part[this]]
        for slot in range(start[this], start[this + 1]):
            other = neighbor[slot]
            if part[other] == part[this]:
                out[new] = rank[other] - begin
                if len(weight):
                    out_weight[new] = weight[slot]
                new += 1


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
def sum_of_mixed(source: Any, target: Any, weight: Any) -> Any:
    """Two sums of the bits of each edge, well stirred: whatever the order, the same."""
    first = np.uint64(0)
    second = np.uint64(0)
    for edge in range(len(source)):
        bits = np.uint64(source[edge]) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(32))) + np.uint64(target[edge])
        if len(weight):
            bits = (bits ^ (bits >> np.uint64(29))) * np.uint64(0xD6E8FEB86659FD93) + weight[edge]
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
        first += bits
        bits *= np.uint64(0xFF51AFD7ED558CCD)
        second += bits ^ (bits >> np.uint64(33))
    return first, second


@njit(cache=True, nogil=True)
def move_nodes(
    start: Any, neighbor: Any, weight: Any, strength: Any, order: Any, community: Any
) -> None:
    """Moves nodes between communities while the modularity rises.

    Args:
        start: Rows of the graph; a loop is an edge to itself.
        neighbor: Other ends.
        weight: Of the edges, float64.
        strength: Sum of each row.
        order: In which nodes move.
        community: Of each node, changed in place; each its own at the beginning.
    """
    total = strength.sum()
    held = strength.copy()  # by each community
    pull = np.zeros(len(community), np.float64)
    for _ in range(_MOST_ROUNDS):
        moved = 0
        for this in order:
            own = community[this]
            held[own] -= strength[this]
            for slot in range(start[this], start[this + 1]):
                if neighbor[slot] != this:
                    pull[community[neighbor[slot]]] += weight[slot]
            goal = own
            best = pull[own] - strength[this] * held[own] / total
            for slot in range(start[this], start[this + 1]):
                there = community[neighbor[slot]]
                gain = pull[there] - strength[this] * held[there] / total
                if neighbor[slot] != this and gain > best + 1e-9 * strength[this]:
                    best, goal = gain, there
            for slot in range(start[this], start[this + 1]):
                pull[community[neighbor[slot]]] = 0
            held[goal] += strength[this]
            community[this] = goal
            moved += goal != own
        if moved * 100 <= len(order):  # the next level does the rest
            return


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
