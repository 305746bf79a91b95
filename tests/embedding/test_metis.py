"""Parts that METIS finds, and what is done where they are too full."""

import builtins

import numpy as np
import pytest
import torch

from lit_gnncompress.embedding import hierarchical_order, metis
from lit_gnncompress.embedding.adjacency import Adjacency
from lit_gnncompress.embedding.metis import exchanged, first_block, flat_parts
from tests.embedding.graphs import cliques, grid, random_edges


def block_of(edges, num_nodes, levels, places, seed=0, kind=None):
    kind = np.zeros(num_nodes, np.int64) if kind is None else kind
    places = places if isinstance(places, tuple) else (places,)
    return first_block(Adjacency.of(edges, num_nodes), kind, levels, places, seed)


@pytest.mark.parametrize("levels", [(4,), (4, 3), (2, 3, 2), (1, 12), (12, 1), (7, 5), (1,)])
@pytest.mark.parametrize("spare", [0, 1, 30])
def test_no_part_is_too_full(levels, spare):
    parts = int(np.prod(levels))
    places = -(-400 // parts) + spare
    leaf = block_of(grid(20), 400, levels, places).leaves()
    assert leaf.min() >= 0
    assert np.bincount(leaf, minlength=parts).max() <= places
    assert len(np.bincount(leaf)) <= parts


@pytest.mark.parametrize("num_nodes", [1, 2, 11, 12, 13])
def test_more_parts_than_nodes(num_nodes):
    leaf = block_of(random_edges(num_nodes, 30), num_nodes, (4, 3), 2).leaves()
    assert np.bincount(leaf).max() <= 2


def test_cliques_stay_whole():
    leaf = block_of(cliques(12, 10), 120, (4, 3), 10).leaves()
    assert all(len(set(leaf[first : first + 10])) == 1 for first in range(0, 120, 10))


def test_nodes_without_neighbours_fill_what_is_left():
    edges = cliques(5, 12)  # nodes from 60 on have none
    leaf = block_of(edges, 100, (5,), 20).leaves()
    assert np.bincount(leaf).tolist() == [20] * 5
    assert all(len(set(leaf[first : first + 12])) == 1 for first in range(0, 60, 12))
    natural = np.sort(leaf[60:])
    assert (leaf[60:] != natural).any()  # their numbers must not tell


def test_a_graph_without_edges_is_spread_evenly():
    leaf = block_of(torch.empty(2, 0, dtype=torch.int64), 30, (3, 2), 7).leaves()
    assert np.bincount(leaf).tolist() == [5] * 6


def test_many_parts_are_cut_in_steps(monkeypatch):
    monkeypatch.setattr(metis, "_MOST_PARTS", 8)
    block = block_of(grid(40), 1600, (50, 3), 11)
    assert (block.num_cuts, len(block.shares), block.shares.sum()) == (3, 8, 50)
    leaf = block.leaves()
    assert np.bincount(leaf, minlength=150).max() <= 11
    source, target = leaf[grid(40)]
    assert (source // 3 == target // 3).mean() > 0.6  # .02 at random


@pytest.mark.parametrize("levels", [(16, 16)])
def test_most_edges_of_a_grid_stay_inside(levels):
    leaf = block_of(grid(160), 160**2, levels, 105).leaves()
    source, target = leaf[grid(160)]
    assert (source == target).mean() >= 0.89
    assert (source // 16 == target // 16).mean() >= 0.97


def test_heavy_edges_are_not_cut():
    edges = grid(20)
    across = edges[1] - edges[0] == 1
    graph = Adjacency.of(edges, 400, torch.where(across, 100.0, 1.0))
    leaf = first_block(graph, np.zeros(400, np.int64), (20,), (21,), 0).leaves()
    source, target = leaf[edges[:, across]]
    assert (source == target).mean() > 0.95


def test_kinds_have_room_of_their_own():
    generator = np.random.default_rng(0)
    kind = generator.integers(0, 2, 300)
    places = tuple(int(-(-(kind == k).sum() * 1.05 // 6)) for k in (0, 1))
    leaf = block_of(random_edges(300, 900), 300, (3, 2), places, kind=kind).leaves()
    for k in (0, 1):
        assert np.bincount(leaf[kind == k], minlength=6).max() <= places[k]


def test_seeds_decide():
    edges = random_edges(200, 1000)
    leaves = [block_of(edges, 200, (5, 4), 11, seed).leaves() for seed in (0, 0, 1)]
    assert (leaves[0] == leaves[1]).all()
    assert (leaves[0] != leaves[2]).any()


def test_large_graphs_are_cut_by_clusters(monkeypatch):
    shares = []
    for most in (metis._MOST_ENTRIES, 1000):
        monkeypatch.setattr(metis, "_MOST_ENTRIES", most)
        leaf = block_of(grid(60), 3600, (6, 5), 126).leaves()
        assert np.bincount(leaf).max() <= 126
        source, target = leaf[grid(60)]
        shares.append((source == target).mean())
    assert shares[0] != shares[1]  # the second one went by clusters
    assert shares[1] > shares[0] - 0.05


@pytest.mark.parametrize("levels", [(6, 5), (30,), (3, 2, 5)])
def test_exchanges_keep_what_fits_and_raise_what_agrees(levels):
    edges = random_edges(400, 3000)
    kind = np.arange(400) % 3 // 2  # two thirds are of the first kind
    block = block_of(edges, 400, levels, (9, 5), kind=kind)
    before = np.empty(400, np.int64)
    for k in (0, 1):
        before[kind == k] = np.arange((kind == k).sum()) % 30
    known = before.copy()
    leaf = exchanged(block, before, np.random.default_rng(0))
    again = exchanged(block, before, np.random.default_rng(0))
    assert (leaf == again).all()
    assert (before == known).all()
    assert np.bincount(leaf[kind == 0]).max() <= 9
    assert np.bincount(leaf[kind == 1]).max() <= 5
    assert agreeing(leaf, edges, levels) > 1.5 * agreeing(before, edges, levels)


def agreeing(leaf, edges, levels):
    """Edges with both ends in the same part, over all levels."""
    source, target = leaf[edges]
    span, total = 1, 0
    for parts in levels[::-1]:
        total += (source // span == target // span).sum()
        span *= parts
    return total


def test_flat_parts_are_one_cut():
    part = flat_parts(Adjacency.of(grid(20), 400), 16, seed=0)
    source, target = part[grid(20)]
    assert len(np.unique(part)) == 16
    assert (source == target).mean() > 0.75
    assert flat_parts(Adjacency.of(grid(2), 4), 5, seed=0).tolist() == [0, 1, 2, 3]


def test_missing_pymetis_is_named(monkeypatch):
    known = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pymetis":
            raise ImportError(name)
        return known(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for method in ("metis", "flat_metis"):
        with pytest.raises(ImportError, match="pip install pymetis"):
            hierarchical_order(grid(5), 25, (3, 10), method=method)
    hierarchical_order(grid(5), 25, (3, 10), method="community")
