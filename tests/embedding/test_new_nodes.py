"""New nodes: near their neighbours, where there is room, and the known ones stay."""

import pytest
import torch

from lit_gnncompress.embedding import NodeOrder, hierarchical_order
from tests.embedding.graphs import grid, random_edges
from tests.embedding.tables import random_order

# Leaves of 3 places: nodes 0, 1 in leaf 0, 2 in leaf 1, 3 and 4 in leaf 2, 5 in leaf 3.
ORDER = NodeOrder((2, 2, 3), torch.tensor([0, 2, 3, 6, 7, 11]), "by hand", "0123")


def leaves(order):
    return order.parts(2)[6:].tolist()


@pytest.mark.parametrize(
    ("edges", "weight", "expected"),
    [
        ([[6, 6, 6], [3, 4, 5]], None, [2]),
        ([[3, 4, 5], [6, 6, 6]], None, [2]),  # in either direction
        ([[6, 6, 6], [3, 4, 5]], [1.0, 1.0, 3.0], [3]),
        ([[6, 6, 6, 6], [2, 2, 2, 5]], None, [1]),  # edges that occur more often count once
        ([[6, 6, 6], [0, 2, 3]], None, [0]),  # part 0 has two of three, its leaves one each
        ([[6, 7, 0], [3, 6, 7]], None, [2, 0]),
        ([[0, 1], [3, 4]], None, [1]),  # no edge of its own: where most is free
    ],
)
def test_nodes_go_to_the_part_of_most_neighbours(edges, weight, expected):
    weight = None if weight is None else torch.tensor(weight)
    new = ORDER.assign(torch.tensor(edges), len(expected), edge_weight=weight)
    assert leaves(new) == expected
    assert torch.equal(new.place[:6], ORDER.place)
    assert (new.rows, new.method, new.graph_hash) == (ORDER.rows, "by hand", None)


def test_the_next_part_is_taken_where_one_is_full():
    edges = torch.tensor([[6, 7, 8, 9, 10, 11], [3, 3, 3, 3, 3, 3]])
    # Leaf 2 has one place, leaf 3 beside it two; then the other half is all that is left.
    assert leaves(ORDER.assign(edges, 6)) == [2, 3, 3, 1, 0, 1]


def test_new_nodes_follow_new_neighbours():
    edges = torch.tensor([[8, 7, 6], [7, 6, 5]])  # 8 - 7 - 6 - 5
    assert leaves(ORDER.assign(edges, 3)) == [3, 3, 2]


def test_the_table_may_be_filled():
    order = hierarchical_order(grid(20), 400, (6, 5, 14))
    edges = random_edges(420, 900)
    full = order.assign(edges, 20)
    assert full.place.sort().values.tolist() == list(range(420))
    assert torch.equal(full.place, order.assign(edges, 20).place)
    assert order.assign(edges[:, :0], 0).num_nodes == 400


def test_a_left_out_fifth_comes_back_near_its_neighbours():
    edges = grid(30)
    number = torch.randperm(900, generator=torch.Generator().manual_seed(0))
    edges = number[edges]
    known = edges[:, (edges < 720).all(0)]
    order = hierarchical_order(known, 720, (9, 4, 30)).assign(edges, 180)
    new = edges[:, (edges >= 720).any(0)]
    same = [(order.parts(level)[new[0]] == order.parts(level)[new[1]]).float() for level in (1, 2)]
    assert same[0].mean() > 0.7
    assert same[1].mean() > 0.5


@pytest.mark.parametrize(
    ("edges", "num_new", "weight", "error", "message"),
    [
        ([[6], [0]], 7, None, ValueError, r"num_new=7 .* 6 are free .*rows=\(2, 2, 5\)"),
        ([[6], [0]], -1, None, ValueError, "num_new=-1"),
        ([[7], [0]], 1, None, IndexError, r"edge_index\[0, 0\]=7 is no node: num_nodes=7"),
        ([[6, 0]], 1, None, ValueError, r"shape \(2, E\)"),
        ([[6], [0]], 1, [-1.0], ValueError, r"edge_weight\[0\]=-1.0"),
    ],
)
def test_bad_arguments_are_refused(edges, num_new, weight, error, message):
    weight = None if weight is None else torch.tensor(weight)
    with pytest.raises(error, match=message):
        ORDER.assign(torch.tensor(edges), num_new, edge_weight=weight)


def test_orders_of_one_factor_fill_up():
    order = random_order(5, (9,)).assign(torch.tensor([[5], [0]]), 4)
    assert order.place.sort().values.tolist() == list(range(9))
