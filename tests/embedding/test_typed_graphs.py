"""Several types of nodes: a table each, parts that belong together."""

import math
from typing import get_args

import pytest
import torch

from lit_gnncompress.embedding import hierarchical_order, typed_rows
from lit_gnncompress.embedding.ordering import Method

CHOSE, RATED = ("user", "chose", "item"), ("item", "of", "brand")
COUNTS = {"user": 300, "item": 180, "brand": 12}
ROWS = {"user": (6, 4, 14), "item": (6, 4, 9), "brand": (6, 4, 1)}


def tastes(groups=12, seed=0):
    """Users choose items of their group; every brand makes the items of one."""
    generator = torch.Generator().manual_seed(seed)
    user = torch.arange(300).repeat_interleave(8)
    nth = torch.randint(180 // groups, (len(user),), generator=generator)
    item = user % groups + groups * nth
    mixed = torch.randperm(180, generator=generator)
    brand = torch.stack([mixed[torch.arange(180)], torch.arange(180) % groups])
    return {CHOSE: torch.stack([user, mixed[item]]), RATED: brand}


EDGES = tastes()


@pytest.mark.parametrize("method", get_args(Method))
def test_each_type_has_an_order_of_its_own(method):
    orders = hierarchical_order(EDGES, COUNTS, ROWS, method=method)
    assert {name: (order.num_nodes, order.rows) for name, order in orders.items()} == {
        name: (COUNTS[name], ROWS[name]) for name in COUNTS
    }
    assert len({order.graph_hash for order in orders.values()}) == 1


def test_what_belongs_together_is_in_parts_of_the_same_number():
    orders = hierarchical_order(EDGES, COUNTS, ROWS)
    for (source, _, target), (a, b) in EDGES.items():
        same = orders[source].parts(1)[a] == orders[target].parts(1)[b]
        assert same.float().mean() > 0.6  # a sixth at random


def test_bipartite_halves_may_have_very_different_sizes():
    edges = {CHOSE: torch.stack([torch.arange(900), torch.arange(900) % 10])}
    counts = {"user": 900, "item": 10}
    orders = hierarchical_order(edges, counts, typed_rows(counts, part_size=91))
    same = orders["user"].parts(1) == orders["item"].parts(1)[edges[CHOSE][1]]
    assert same.float().mean() > 0.8


def test_weights_come_by_type_of_edges():
    weight = {kind: torch.ones(edges.size(1)) for kind, edges in EDGES.items()}
    light = {**weight, CHOSE: torch.zeros(EDGES[CHOSE].size(1))}
    brands = hierarchical_order(EDGES, COUNTS, ROWS, edge_weight=light)
    a, b = EDGES[RATED]
    assert (brands["item"].parts(1)[a] == brands["brand"].parts(1)[b]).float().mean() > 0.9
    assert brands["item"].graph_hash != hierarchical_order(EDGES, COUNTS, ROWS)["item"].graph_hash


@pytest.mark.parametrize("num_factors", [2, 3, 4])
def test_proposed_rows_have_room_and_share_all_but_the_last(num_factors):
    rows = typed_rows(COUNTS, num_factors, part_size=40)
    assert len({factors[:-1] for factors in rows.values()}) == 1
    for name, count in COUNTS.items():
        assert len(rows[name]) == num_factors
        assert math.prod(rows[name]) >= 1.05 * count
    hierarchical_order(EDGES, COUNTS, rows)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rows": {**ROWS, "item": (4, 6, 9)}}, ValueError, r"only their last .*rows=\{'user'"),
        ({"rows": {**ROWS, "item": (6, 4, 7)}}, ValueError, "168 nodes of type 'item', 12 too few"),
        ({"rows": (6, 4, 14)}, ValueError, "num_nodes and rows must be dictionaries"),
        ({"rows": {"user": (6, 4, 14)}}, ValueError, r"rows has the keys \['user'\]: it lacks"),
        ({"rows": {**ROWS, "shop": (6, 4, 1)}}, ValueError, r"has \['shop'\] which there are not"),
        ({"edge_weight": {CHOSE: torch.ones(2400)}}, ValueError, "edge_weight .* lacks"),
        ({"edge_index": {("user", "saw", "film"): EDGES[CHOSE]}}, ValueError, r"lacks \['film'\]"),
        (
            {"edge_index": {CHOSE: torch.tensor([[0], [180]])}},
            IndexError,
            r"\('user', 'chose', 'item'\): edge_index\[1, 0\]=180 is no node: num_nodes=180",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        hierarchical_order(**{"edge_index": EDGES, "num_nodes": COUNTS, "rows": ROWS, **arguments})
