"""The loop that makes nodes of clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def contract(
    start: Any,
    neighbor: Any,
    weight: Any,
    cluster: Any,
    node: Any,
    first: Any,
    out_start: Any,
    out: Any,
    out_weight: Any,
) -> None:
    """Adds up the edges between clusters.

    Args:
        start: Rows of the graph.
        neighbor: Other ends.
        weight: Of the edges, or empty.
        cluster: Of each node.
        node: The nodes by cluster.
        first: Where each cluster begins among them.
        out_start: Filled with the rows of the new graph.
        out: Filled with other ends, unless it is empty.
        out_weight: Filled with weights likewise.
    """
    slot_of = np.full(len(first) - 1, -1, np.int64)
    used = 0
    for this in range(len(first) - 1):
        begin = used
        for member in node[first[this] : first[this + 1]]:
            for slot in range(start[member], start[member + 1]):
                there = cluster[neighbor[slot]]
                if there == this:
                    continue
                if slot_of[there] < begin:
                    slot_of[there] = used
                    if len(out):
                        out[used] = there
                        out_weight[used] = 0
                    used += 1
                if len(out):
                    out_weight[slot_of[there]] += weight[slot] if len(weight) else 1
        out_start[this + 1] = used
