"""The loop of Louvain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_MOST_ROUNDS = 20


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
