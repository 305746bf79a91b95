"""Loops over edges: rows of neighbours, and the sum that tells graphs apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


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
