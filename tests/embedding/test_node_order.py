"""Places of nodes: bijective, in parts, and the same when read back."""

import copy
import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from lit_gnncompress.embedding import NodeOrder, hierarchical_order
from tests.embedding.graphs import grid, random_edges
from tests.embedding.tables import random_order

ROWS = (3, 2, 4)


def test_parts_are_the_leading_digits():
    order = random_order(20, ROWS)
    for place, first, second in zip(order.place, order.parts(1), order.parts(2), strict=True):
        i1, i2 = int(place) // 8, int(place) // 4 % 2
        assert (int(first), int(second)) == (i1, 2 * i1 + i2)
    assert [order.num_parts(level) for level in (1, 2)] == [3, 6]
    assert (order.capacity, order.num_nodes, order.num_levels) == (24, 20, 2)


def test_node_is_the_inverse_of_place():
    order = random_order(20, ROWS)
    assert order.node[order.place].tolist() == list(range(20))
    assert (order.node == -1).sum() == order.capacity - order.num_nodes


@pytest.mark.parametrize("level", [0, 3, -1])
def test_other_levels_are_refused(level):
    with pytest.raises(ValueError, match=rf"level={level} must lie in \[1, 2\]"):
        random_order(20, ROWS).parts(level)


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (torch.tensor([0, 24]), ValueError, r"place\[1\]=24 is outside of the table.* 24 places"),
        (torch.tensor([-1, 2]), ValueError, r"place\[0\]=-1 is outside"),
        (torch.tensor([5, 1, 5]), ValueError, r"place=5 is taken by the nodes \[0, 2\]"),
        (torch.tensor([1, 2], dtype=torch.int32), TypeError, r"int64 .* got torch.int32"),
        (torch.tensor([[1, 2]]), TypeError, r"shape \(1, 2\)"),
        ([1, 2], TypeError, "got list"),
    ],
)
def test_places_that_are_not_injective_are_refused(place, error, message):
    with pytest.raises(error, match=message):
        NodeOrder(ROWS, place, "by hand")


@pytest.mark.parametrize("rows", [(), (3, 0), (3, 2.0), (True, 4)])
def test_factors_below_one_are_refused(rows):
    with pytest.raises(ValueError, match="rows="):
        NodeOrder(rows, torch.tensor([0]), "by hand")


@pytest.mark.parametrize("graph_hash", [None, "0123"])
def test_a_file_gives_the_order_back(tmp_path, graph_hash):
    order = random_order(20, ROWS, graph_hash=graph_hash)
    order.save(tmp_path / "deeper" / "order.safetensors")
    back = NodeOrder.load(tmp_path / "deeper" / "order.safetensors")
    assert (back.rows, back.method, back.graph_hash) == (ROWS, "random", graph_hash)
    assert torch.equal(back.place, order.place)
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["order.safetensors"]


@pytest.mark.parametrize("way", [copy.deepcopy, lambda order: pickle.loads(pickle.dumps(order))])
def test_orders_are_copied(way):
    order = random_order(20, ROWS)
    assert torch.equal(way(order).place, order.place)


def _other_kind(path):
    save_file({"place": torch.arange(3)}, path)


def _without_checksum(path):
    about = {"rows": [2, 2], "method": "by hand", "graph_hash": None}
    metadata = {"kind": "lit_gnncompress.NodeOrder", "order": json.dumps(about)}
    save_file({"place": torch.tensor([1, 0])}, path, metadata)


def _flipped(bit):
    def write(path):
        random_order(20, ROWS).save(path)
        text = bytearray(path.read_bytes())
        text[-20 * 8] ^= 1 << bit  # of the place of node 0
        path.write_bytes(text)

    return write


def _other_rows(path):
    random_order(20, ROWS).save(path)
    text = path.read_bytes()
    rows = str(list(ROWS)).encode()
    assert text.count(rows) == 1
    path.write_bytes(text.replace(rows, str(list(reversed(ROWS))).encode()))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"12345678"), "cannot|not an order"),
        (_other_kind, "it holds no NodeOrder"),
        (_without_checksum, "it is damaged, its checksum is another: make the order anew"),
        *((_flipped(bit), "it is damaged") for bit in range(8)),
        (_other_rows, "it is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, write, message):
    write(tmp_path / "file")
    with pytest.raises(ValueError, match=message):
        NodeOrder.load(tmp_path / "file")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        NodeOrder.load(tmp_path / "nowhere")


def test_an_order_knows_its_graph():
    edges = grid(10)
    order = hierarchical_order(edges, 100, (4, 30))
    order.check_graph(edges.flip(1))
    for other, num_nodes in ((edges[:, 1:], 100), (edges, 101), (random_edges(100, 180), 100)):
        with pytest.raises(ValueError, match="order this one"):
            order.check_graph(other, num_nodes=num_nodes)
    with pytest.raises(ValueError, match="graph_hash=None"):
        random_order(100, (4, 30)).check_graph(edges)
