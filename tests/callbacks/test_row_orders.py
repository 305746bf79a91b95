"""What tables are ordered by: graphs, rows that train, orders made before."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from lit_gnncompress.callbacks import Tensorize, row_orders
from lit_gnncompress.callbacks.row_orders import rows_to_order_by
from lit_gnncompress.data import CriteoDataModule, LibFMDataModule
from lit_gnncompress.embedding import hierarchical_order
from lit_gnncompress.embedding.cooccurrence import cooccurrence_order, frequency_order
from tests.callbacks.tiny import make_graph

NODES, ROWS = 60, (5, 3, 5)
ORDER = hierarchical_order(make_graph(NODES).edge_index, NODES, ROWS)


@pytest.fixture(scope="module")
def data():
    return CriteoDataModule()


def tables(*sizes):
    return nn.ModuleList(nn.Embedding(size, 8) for size in sizes)


def tensorize(module, graph=None, datamodule=None, names=("*",), **arguments):
    callback = Tensorize(list(names), rank=2, verbose=False, **arguments)
    callback.replace(module, graph, datamodule)
    return callback.tables


def place(module, index=0):
    return module[index].row_order.place.long()


# --- by default -----------------------------------------------------------------------------------


def test_tables_of_nodes_are_ordered_by_their_graph_and_others_not_at_all():
    module, graph = tables(NODES, NODES + 1), make_graph(NODES)
    assert [table.order for table in tensorize(module, graph)] == ["metis", "none"]
    order = hierarchical_order(graph.edge_index, NODES, module[0].shape.rows)
    assert torch.equal(place(module), order.place)
    assert module[1].row_order is None


@pytest.mark.parametrize("graph", [None, [1, 2], Data(x=torch.ones(NODES, 2))])
def test_without_a_graph_there_is_no_order(graph):
    module = tables(NODES)
    assert [table.order for table in tensorize(module, graph)] == ["none"]
    with pytest.raises(ValueError, match="parts=True needs an order"):
        tensorize(tables(NODES), graph, parts=True)


def test_edges_given_by_hand_are_a_graph():
    module, graph = tables(NODES), make_graph(NODES)
    assert [t.order for t in tensorize(module, edge_index=graph.edge_index)] == ["metis"]


# --- by rows that train ---------------------------------------------------------------------------


def test_tables_are_ordered_by_the_field_of_their_name(data):
    module = tables(*data.num_embeddings[:3])
    done = tensorize(module, datamodule=data, order="cooccurrence", seed=3)
    assert [table.order for table in done] == ["cooccurrence"] * 3
    batch = data.rows.batch(data.split.train)
    categories = batch.sparse[batch.label == 1]
    for field, size in enumerate(data.num_embeddings[:3]):
        rows = module[field].shape.rows
        expected = cooccurrence_order(categories, field, size, rows, seed=3)
        assert torch.equal(place(module, field), expected.place)
        assert np.prod(rows) >= 1.05 * size


def test_frequent_categories_come_first(data):
    module = tables(*data.num_embeddings[:2])
    tensorize(module, datamodule=data, order="frequency")
    categories = torch.from_numpy(data.rows.sparse[data.split.train])
    for field in (0, 1):
        expected = frequency_order(
            categories[:, field], data.num_embeddings[field], module[field].shape.rows
        )
        assert torch.equal(place(module, field), expected.place)


@pytest.mark.parametrize("label", [0, 1])
def test_rows_that_are_all_alike_all_order(data, label):
    unclicked = CriteoDataModule()
    unclicked._rows = replace(data.rows, label=np.full_like(data.rows.label, label))
    everything = data.rows.sparse[data.split.train]
    assert np.array_equal(rows_to_order_by(unclicked, 0, positive=True), everything)


@pytest.mark.parametrize("folds", [None, 3])
@pytest.mark.parametrize("piece", [1000, 2**20])
def test_positive_rows_are_a_spread_sample_of_those_that_train(folds, piece, monkeypatch):
    monkeypatch.setattr(row_orders, "_PIECE", piece)
    data = LibFMDataModule(folds=folds)
    batch = data.rows.batch(data.split.train)
    positive = batch.sparse[batch.label == 1]
    assert 0 < len(positive) < len(batch.label)
    assert torch.equal(rows_to_order_by(data, 0, positive=True), positive)
    sample = rows_to_order_by(data, 0, max_rows=500, positive=True)
    ends = torch.arange(501) * len(positive) // 500
    for k in range(500):
        assert (positive[ends[k] : ends[k + 1]] == sample[k]).all(1).any()


@pytest.mark.parametrize("folds", [None, 3])
def test_rows_that_order_are_a_spread_sample_of_those_that_train(folds):
    data = LibFMDataModule(folds=folds)
    everything = rows_to_order_by(data, 0)
    assert everything.dtype == torch.int64
    assert np.array_equal(everything, data.rows.sparse[data.split.train])
    sample = rows_to_order_by(data, 0, max_rows=1000)
    stretch = len(everything) // 1000
    for k in (0, 500, 999):
        near = everything[k * stretch : (k + 1) * (stretch + 1)]
        assert (near == sample[k]).all(1).any()
    assert len(sample) == 1000
    assert torch.equal(sample, rows_to_order_by(data, 0, max_rows=1000))
    assert not torch.equal(sample, rows_to_order_by(data, 1, max_rows=1000))


@pytest.mark.parametrize("order", ["cooccurrence", "frequency"])
def test_tables_that_are_of_no_field(data, order):
    for module, datamodule, message in (
        (tables(1000), None, f"by {order}, which takes a datamodule of rows.*none is there"),
        (tables(1000), make_graph(NODES), "and it is a Data: pass an order made before"),
        (tables(999), data, "'0' has 999 rows, and field 0 of CriteoDataModule.* 1000 categories"),
        (nn.ModuleDict({"a": nn.Embedding(9, 8)}), data, "'a' does not end with the number"),
        (nn.ModuleDict({"26": nn.Embedding(9, 8)}), data, "'26' does not end .* of the 26 fields"),
    ):
        with pytest.raises(ValueError, match=message):
            tensorize(module, datamodule=datamodule, order=order)


# --- made before ----------------------------------------------------------------------------------


def test_the_order_of_another_graph_is_refused():
    other = make_graph(NODES, seed=1)
    for arguments, message in (
        ({"graph": other}, "the datamodule's graph is .*hierarchical_order.*graph_hash=None"),
        ({"edge_index": other.edge_index}, "edge_index is .*order this one by"),
    ):
        with pytest.raises(ValueError, match=message):
            tensorize(tables(NODES), order=ORDER, **arguments)


def test_an_order_is_taken_where_nothing_contradicts_it():
    graph, weighted = make_graph(NODES), make_graph(NODES)
    weighted.edge_weight = torch.rand(weighted.num_edges)
    of_weights = hierarchical_order(
        weighted.edge_index, NODES, ROWS, edge_weight=weighted.edge_weight
    )
    for order, arguments in (
        (ORDER, {"graph": graph}),
        (ORDER, {"edge_index": graph.edge_index.flip(1)}),
        (ORDER, {"graph": weighted}),
        (of_weights, {"graph": weighted}),
        (ORDER, {"graph": make_graph(NODES + 1)}),  # not of these rows
        (ORDER, {}),
        (replace(ORDER, graph_hash=None), {"graph": make_graph(NODES, seed=1)}),
    ):
        module = tables(NODES)
        tensorize(module, order=order, **arguments)
        assert torch.equal(place(module), order.place)
