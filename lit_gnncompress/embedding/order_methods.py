"""Ways to order nodes: where each finds its place."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lit_gnncompress.embedding.adjacency import Adjacency
from lit_gnncompress.embedding.louvain import communities
from lit_gnncompress.embedding.metis import exchanged, first_block, flat_parts
from lit_gnncompress.embedding.metis_processes import all_leaves, num_processes, scratch_folder
from lit_gnncompress.embedding.order_progress import order_progress
from lit_gnncompress.embedding.typed_graphs import TypedGraph

Method = Literal["metis", "flat_metis", "community", "degree", "random", "none"]
Within = Literal["shuffle", "degree", "natural"]
Array = NDArray[np.int64]


def places(
    graph: TypedGraph,
    method: Method,
    within: Within,
    seed: int,
    progress: bool,
    num_workers: int | None,
) -> dict[str, Array]:
    """The place of each node in the table of its type, by type.

    Arguments are those of :func:`~lit_gnncompress.embedding.hierarchical_order`.
    """
    if seed < 0:
        raise ValueError(f"seed={seed} must be 0 or more.")
    random = np.random.default_rng(seed)
    rows, counts = graph.rows, graph.num_nodes
    if method == "none":
        return {name: np.arange(count) for name, count in counts.items()}
    if method == "random":
        return {
            name: random.permutation(math.prod(rows[name]))[:count]
            for name, count in counts.items()
        }
    with order_progress(graph.size, progress) as advance, scratch_folder() as folder:
        workers = num_processes(graph.edge_index.size(1), num_workers)
        advance("neighbours of nodes", 0)
        shared = folder if workers > 1 else None
        adjacency = Adjacency.of(graph.edge_index, graph.size, graph.edge_weight, shared)
        rank = _ranks(adjacency, "degree" if method == "degree" else within, random)
        kind = np.repeat(np.arange(len(rows)), list(counts.values()))
        levels = next(iter(rows.values()))[:-1]  # of all types
        if method == "metis":
            ends = [factors[-1] for factors in rows.values()]
            block = first_block(adjacency, kind, levels, ends, seed)
            leaf = all_leaves(block, workers, shared, advance)
            advance("exchanges between parts", 0)
            leaf = exchanged(block, leaf, random)
            return {
                name: _inside_leaves(leaf[kind == i], rank[kind == i], rows[name], within, random)
                for i, name in enumerate(rows)
            }
        advance(f"order by {method}", 0)
        keys: list[Array] = []
        if method == "flat_metis":
            keys = [flat_parts(adjacency, math.prod(levels), seed)]
        elif method == "community":
            keys = communities(adjacency, seed)
        sequence = np.lexsort((rank, *keys))
        advance("ordered", graph.size)
    out = {}
    for i, name in enumerate(rows):
        place = np.empty(graph.size, np.int64)
        place[sequence[kind[sequence] == i]] = np.arange(counts[name])
        out[name] = place[kind == i]
    return out


def _ranks(graph: Adjacency, within: Within, random: np.random.Generator) -> Array:
    """Where each node comes inside its part."""
    nodes = np.arange(graph.num_nodes)
    if within != "natural":
        nodes = random.permutation(nodes)
    if within == "degree":
        nodes = nodes[np.argsort(-graph.degree[nodes], kind="stable")]
    rank = np.empty_like(nodes)
    rank[nodes] = np.arange(len(nodes))
    return rank


def _inside_leaves(
    leaf: Array, rank: Array, rows: tuple[int, ...], within: Within, random: np.random.Generator
) -> Array:
    """Places in the parts of the last level, of which each has ``rows[-1]``.

    Shuffled nodes lie anywhere in them, so that the last digits are all equally often seen.
    """
    num_leaves, size = math.prod(rows[:-1]), rows[-1]
    nodes = np.lexsort((rank, leaf))
    count = np.bincount(leaf, minlength=num_leaves)
    nth = np.arange(len(leaf)) - np.repeat(count.cumsum() - count, count)
    place = np.empty_like(leaf)
    place[nodes] = leaf[nodes] * size + nth
    if within == "shuffle":
        slots = random.permutation(num_leaves * size)
        slots = slots[np.argsort(slots // size, kind="stable")]
        place = slots[place]
    return place
