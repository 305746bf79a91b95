"""Orders by every method: in their places, near neighbours, cached, and the same again."""

import os
from collections import Counter
from typing import get_args

import pytest
import torch

from lit_gnncompress.data.folders import ROOT_VARIABLE
from lit_gnncompress.embedding import graph_rows, hierarchical_order, order_methods, ordering
from lit_gnncompress.embedding.ordering import Method, Within
from tests.embedding.graphs import cliques, equal_parts, grid, random_edges

METHODS, WITHIN = get_args(Method), get_args(Within)
GRID, ROWS = grid(40), (8, 5, 42)
N = 1600


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("within", WITHIN)
def test_every_node_has_a_place_of_its_own(method, within):
    order = hierarchical_order(GRID, N, ROWS, method=method, within=within)  # NodeOrder checks it
    again = hierarchical_order(GRID, N, ROWS, method=method, within=within)
    assert (order.method, order.rows, order.num_nodes) == (method, ROWS, N)
    assert torch.equal(order.place, again.place)
    assert (order.graph_hash is None) == (method in ("random", "none"))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "none"])
def test_seeds_decide(method):
    orders = [hierarchical_order(GRID, N, ROWS, method=method, seed=seed) for seed in (0, 1)]
    assert not torch.equal(orders[0].place, orders[1].place)


def test_recursive_parts_keep_more_edges_than_all_else():
    share = {
        method: equal_parts(hierarchical_order(GRID, N, ROWS, method=method), GRID, 2)
        for method in METHODS
        if method != "none"
    }
    assert max(share, key=share.get) == "metis"
    assert share["community"] > 10 * share["random"]


@pytest.mark.parametrize("method", ["metis", "flat_metis", "community"])
@pytest.mark.parametrize("within", WITHIN)
def test_nodes_inside_parts_come_as_they_are_told(method, within):
    edges, count, size = cliques(5, 9), 5, 9
    star = torch.stack([torch.arange(0, 45, 9), torch.full((5,), 44)])  # other degrees
    edges = torch.cat([edges, star[:, :0]], 1) if method == "community" else edges
    order = hierarchical_order(edges, count * size, (count, 12), method=method, within=within)
    degree = torch.bincount(edges.flatten(), minlength=45)
    ordered = []
    for first in range(0, 45, size):
        nodes = torch.arange(first, first + size)
        by_place = nodes[order.place[nodes].argsort()]
        if within == "natural":
            assert torch.equal(by_place, nodes)
        elif within == "degree":
            assert (degree[by_place].diff() <= 0).all()
        ordered.append(torch.equal(by_place, nodes))
    assert within == "natural" or not all(ordered)


def test_degrees_fall_inside_leaves():
    edges = random_edges(300, 2000)
    order = hierarchical_order(edges, 300, (5, 4, 18), within="degree")
    edges = edges[:, edges[0] != edges[1]]
    both = torch.cat([edges, edges.flip(0)], 1).unique(dim=1)
    degree = torch.bincount(both[0], minlength=300)
    for part in range(20):
        nodes = (order.parts(2) == part).nonzero().flatten()
        assert (degree[nodes[order.place[nodes].argsort()]].diff() <= 0).all()


def test_shuffled_nodes_use_all_last_digits():
    order = hierarchical_order(grid(30), 900, (30, 60))  # half of the places are free
    digits = Counter((order.place % 60).tolist())
    assert min(digits[digit] for digit in range(60)) > 0
    dense = hierarchical_order(grid(30), 900, (30, 60), within="natural")
    assert int((dense.place % 60).max()) < 45


def test_degree_order_falls():
    edges = random_edges(200, 900).unique(dim=1)
    edges = edges[:, edges[0] < edges[1]]
    order = hierarchical_order(edges, 200, (10, 21), method="degree")
    degree = torch.bincount(edges.flatten(), minlength=200)
    assert (degree[order.node[:200]].diff() <= 0).all()


@pytest.mark.parametrize("change", ["mixed", "both ways", "loops", "twice", "int32"])
def test_only_the_graph_matters(change):
    edges = random_edges(400, 1500)
    known = hierarchical_order(edges, 400, (10, 5, 9))
    if change == "mixed":
        edges = edges[:, torch.randperm(1500)]
    elif change == "both ways":
        edges = torch.cat([edges, edges.flip(0)], 1)
    elif change == "loops":
        edges = torch.cat([edges, torch.arange(400).expand(2, -1)], 1)
    elif change == "twice":
        edges = edges.repeat(1, 2)
    else:
        edges = edges.int()
    assert torch.equal(hierarchical_order(edges, 400, (10, 5, 9)).place, known.place)


def test_equal_weights_mean_nothing_and_others_do():
    edges = grid(30)
    across = edges[1] - edges[0] == 1
    none = hierarchical_order(edges, 900, (30, 33))
    rows = hierarchical_order(edges, 900, (30, 33), edge_weight=torch.where(across, 50.0, 0.5))
    assert equal_parts(rows, edges[:, across], 1) > 0.9 > equal_parts(none, edges[:, across], 1)
    dropped = hierarchical_order(edges, 900, (30, 33), edge_weight=across.float())
    assert equal_parts(dropped, edges[:, across], 1) > 0.9


@pytest.mark.parametrize("rows", [(1700,), (40, 42), (5, 4, 3, 28), (1, 1, 1600)])
def test_any_number_of_factors(rows):
    order = hierarchical_order(GRID, N, rows)
    assert order.num_levels == len(rows) - 1


def test_rows_without_a_place_to_spare():
    order = hierarchical_order(GRID, N, (8, 5, 40))
    assert order.place.sort().values.tolist() == list(range(N))
    assert equal_parts(order, GRID, 2) > 0.6


def test_isolated_nodes_and_single_ones():
    order = hierarchical_order(torch.empty(2, 0, dtype=torch.int64), 7, (2, 2, 3))
    assert order.num_nodes == 7
    assert hierarchical_order(torch.tensor([[0], [0]]), 1, (1, 1)).place.tolist() == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": (8, 5, 30)}, r"room for 1,200 nodes, 400 too few .*rows=\(8, 5, 42\)"),
        ({"rows": (8, 0, 30)}, "rows="),
        ({"method": "metric"}, "method='metric' is unknown: choose one of metis, flat_metis"),
        ({"within": "sorted"}, "within='sorted' is unknown: choose one of shuffle"),
        ({"num_workers": 0}, "num_workers=0 must be 1 or more"),
        ({"edge_weight": torch.ones(3)}, r"edge_weight has shape \(3,\)"),
        ({"num_nodes": 2.5}, "num_nodes=2.5"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        hierarchical_order(**{"edge_index": GRID, "num_nodes": N, "rows": ROWS, **arguments})


def test_how_it_is_done_is_passed_on(monkeypatch):
    calls = []

    def places(graph, *how):
        calls.append(how)
        return order_methods.places(graph, "none", *how[1:])

    monkeypatch.setattr(ordering, "places", places)
    hierarchical_order(GRID, N, ROWS)
    how = {"method": "degree", "within": "natural", "seed": 7, "progress": False, "num_workers": 1}
    hierarchical_order(GRID, N, ROWS, **how)
    assert calls == [("metis", "shuffle", 0, True, None), tuple(how.values())]


@pytest.mark.parametrize("method", METHODS)
def test_edges_of_unknown_nodes_are_refused(method):
    with pytest.raises(IndexError, match=r"edge_index\[0, 975\]=1000 is no node: num_nodes=1000"):
        hierarchical_order(GRID, 1000, ROWS, method=method)


def test_rows_that_are_proposed_do(monkeypatch):
    with pytest.raises(ValueError, match="too few") as caught:
        hierarchical_order(GRID, N, (8, 5, 7))
    rows = eval(str(caught.value).split("rows=")[-1].split(" have")[0])
    hierarchical_order(GRID, N, rows)


@pytest.mark.parametrize("name", ["Cornell5", "ProNE-DBLP"])
def test_real_graphs_keep_more_than_one_flat_cut(name):
    if not os.path.isdir(os.environ.get(ROOT_VARIABLE, "")):
        pytest.skip(f"needs raw data sets: set {ROOT_VARIABLE} to their folder")
    from lit_gnncompress.data import load_graph

    data = load_graph(name, features=False)
    rows = graph_rows(data.num_nodes, part_size=400)
    orders = [
        hierarchical_order(data.edge_index, data.num_nodes, rows, method=method)
        for method in ("metis", "flat_metis")
    ]
    for level in (1, 2):
        ours, flat = (equal_parts(order, data.edge_index, level) for order in orders)
        assert ours > flat
