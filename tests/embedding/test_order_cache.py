"""Orders out of a folder: only the same ones, never broken ones."""

import pytest
import torch

from lit_gnncompress.embedding import NodeOrder, hierarchical_order, order_methods, ordering
from tests.embedding.graphs import grid, random_edges

EDGES, N, ROWS = grid(20), 400, (6, 5, 14)
TYPED = (
    {("user", "chose", "item"): random_edges(40, 200)},
    {"user": 40, "item": 50},
    {"user": (4, 3, 4), "item": (4, 3, 5)},
)


@pytest.fixture
def made(monkeypatch):
    """How many orders were made, not read."""
    calls = []

    def places(*args):
        calls.append(args)
        return order_methods.places(*args)

    monkeypatch.setattr(ordering, "places", places)
    return calls


@pytest.mark.parametrize("method", ["metis", "flat_metis", "community", "degree"])
def test_the_second_call_reads(made, tmp_path, method):
    folder = tmp_path / "deep" / "folder"
    orders = [
        hierarchical_order(edges, N, ROWS, method=method, cache_dir=folder)
        for edges in (EDGES, EDGES.flip(1))
    ]
    assert len(made) == 1
    assert torch.equal(orders[0].place, orders[1].place)
    assert (orders[0].graph_hash, orders[0].method) == (orders[1].graph_hash, method)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"edge_index": EDGES[:, 1:]}, {"num_nodes": 401}, {"rows": (5, 6, 14)}, {"seed": 1},
        {"method": "degree"}, {"within": "natural"}, {"edge_weight": torch.ones(EDGES.size(1))},
    ],
)  # fmt: skip
def test_other_arguments_make_another_order(made, tmp_path, change):
    arguments = {"edge_index": EDGES, "num_nodes": N, "rows": ROWS, "cache_dir": tmp_path}
    hierarchical_order(**arguments)
    hierarchical_order(**{**arguments, **change})
    assert len(made) == 2
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("method", ["random", "none"])
def test_orders_without_a_graph_are_not_kept(tmp_path, method):
    hierarchical_order(EDGES, N, ROWS, method=method, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def _cut_short(path):
    path.write_bytes(path.read_bytes()[:-8])


def _flipped(path):
    text = path.read_bytes()
    path.write_bytes(text[:-8] + bytes([text[-8] ^ 1]) + text[-7:])


def _another_graph(path):
    known = NodeOrder.load(path)
    NodeOrder(known.rows, known.place, known.method, "0" * 32).save(path)


def _other_rows(path):
    known = NodeOrder.load(path)
    NodeOrder((420,), known.place, known.method, known.graph_hash).save(path)


@pytest.mark.parametrize(
    "spoil",
    [_cut_short, _flipped, _another_graph, _other_rows, lambda path: path.write_bytes(b"")],
)
def test_spoilt_files_are_made_anew(made, tmp_path, spoil):
    first = hierarchical_order(EDGES, N, ROWS, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    spoil(path)
    with pytest.warns(UserWarning, match=f"made anew: .*{path.name}"):
        second = hierarchical_order(EDGES, N, ROWS, cache_dir=tmp_path)
    third = hierarchical_order(EDGES, N, ROWS, cache_dir=tmp_path)
    assert len(made) == 2
    assert torch.equal(first.place, second.place)
    assert torch.equal(first.place, third.place)


def test_types_are_kept_together(made, tmp_path):
    orders = [hierarchical_order(*TYPED, cache_dir=tmp_path) for _ in range(2)]
    assert len(made) == 1
    assert len(list(tmp_path.iterdir())) == 2
    for name in ("user", "item"):
        assert torch.equal(orders[0][name].place, orders[1][name].place)
    next(tmp_path.iterdir()).unlink()
    hierarchical_order(*TYPED, cache_dir=tmp_path)
    assert len(made) == 2


def test_an_order_that_cannot_be_kept_is_there_all_the_same(made, tmp_path):
    expected = hierarchical_order(EDGES, N, ROWS)
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match=r"cache_dir='.*file': the order cannot be kept there"):
        order = hierarchical_order(EDGES, N, ROWS, cache_dir=tmp_path / "file")
    assert torch.equal(order.place, expected.place)
    assert len(made) == 2


def test_the_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    hierarchical_order(EDGES, N, ROWS, cache_dir="~/orders")
    assert len(list((tmp_path / "orders").iterdir())) == 1
