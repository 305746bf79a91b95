import warnings

import lightning as L
import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import DataLoader, RandomNodeLoader
from torch_geometric.nn import GraphSAGE, HeteroConv, SAGEConv
from torch_geometric.utils import degree, to_torch_csr_tensor

from lit_gnncompress import BitPlan
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from tests.callbacks.tiny import Tiny, fit, make_graph, make_module, make_trainer, quantize

BY_DEGREE = BitPlan(features=[8, 2], degree_splits=[5])


def expected_counts(degrees, split=5):
    """Rows per bucket."""
    return [int((degrees < split).sum()), int((degrees >= split).sum())]


def counts_of(callback, site="net.convs.0"):
    return [row.rows for row in callback.ledger.rows if row.site == site]


def predict(callback, batch, module=None, datamodule=None):
    if datamodule is None:
        make_trainer(callback).predict(module or make_module(), FullGraphLoader(batch))
    else:
        make_trainer(callback).predict(module or make_module(), datamodule=datamodule)


def sampled(graph, num_nodes=20):
    """The first nodes of ``graph`` and the edges among them, as a sampler gives them."""
    nodes = torch.arange(num_nodes)
    batch = graph.subgraph(nodes)
    batch.batch_size = 5
    return batch, nodes


def test_degrees_of_a_full_graph_are_counted_in_its_edges():
    callback, graph = quantize(BY_DEGREE), make_graph()
    predict(callback, graph)
    assert counts_of(callback) == expected_counts(degree(graph.edge_index[1], 40))


def test_degrees_of_a_sparse_graph_are_counted_in_its_rows():
    class Sparse(Tiny):
        def forward(self, batch):
            return self.net(batch.x, batch.adj_t)

    callback, graph = quantize(BY_DEGREE), make_graph()
    expected = expected_counts(degree(graph.edge_index[1], 40))
    graph.adj_t = to_torch_csr_tensor(graph.edge_index.flip(0), size=(40, 40))
    del graph.edge_index
    predict(callback, graph, Sparse(net=GraphSAGE(8, 16, 2, 3)))
    assert counts_of(callback) == expected


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_batches_that_a_loader_collates_work_in_every_stage(stage):
    # Evaluation makes them in inference mode, where tensors have no version.
    callback, graphs = quantize(BY_DEGREE), [make_graph(30, seed) for seed in range(4)]
    loader = DataLoader(graphs, batch_size=2)
    loaders = (loader, loader) if stage == "fit" else (loader,)
    getattr(make_trainer(callback), stage)(make_module(), *loaders)
    degrees = torch.cat([degree(g.edge_index[1], 30) for g in graphs[2:]])
    assert counts_of(callback) == expected_counts(degrees)


def test_edges_that_change_in_place_are_counted_again():
    callback, graph = quantize(BY_DEGREE), make_graph()
    trainer, module = make_trainer(callback), make_module()
    trainer.predict(module, FullGraphLoader(graph))
    graph.edge_index[1] = 7
    trainer.predict(module, FullGraphLoader(graph))
    assert counts_of(callback) == [39, 1]


@pytest.mark.parametrize("nest", [tuple, list, lambda pair: {"a": pair[0], "graph": pair[1]}])
def test_the_graph_is_found_inside_the_batch(nest):
    class Nested(Tiny):
        def forward(self, batch):
            graph = batch["graph"] if isinstance(batch, dict) else batch[1]
            return super().forward(graph)

    callback, graph = quantize(BY_DEGREE), make_graph(with_degrees=True)
    graph.deg = torch.full((40,), 2)
    predict(callback, nest((torch.zeros(3), graph)), Nested())
    assert counts_of(callback) == [40, 0]


def test_a_batch_without_a_graph_is_left_to_the_layers():
    class Tensors(Tiny):
        def forward(self, batch):
            return self.net(*batch)

    callback, graph = quantize(BY_DEGREE), make_graph()
    predict(callback, (graph.x, graph.edge_index), Tensors())
    assert counts_of(callback) == expected_counts(degree(graph.edge_index[1], 40))


def test_layers_of_several_graphs_count_for_themselves():
    class Two(Tiny):
        def forward(self, batch):
            return [super(Two, self).forward(graph) for graph in batch]

    first, second = make_graph(with_degrees=True), make_graph(30, seed=1)
    callback = quantize(BY_DEGREE)
    predict(callback, [first, second], Two())
    assert counts_of(callback) == [
        *expected_counts(degree(first.edge_index[1], 40)),
        *expected_counts(degree(second.edge_index[1], 30)),
    ]


class Pair(Data):
    def __inc__(self, key, value, *args):
        if key.startswith("edge_index"):
            return self["x_" + key[-1]].size(0)
        return super().__inc__(key, value, *args)


def test_a_graph_whose_nodes_have_no_common_name_is_left_to_the_layers():
    class Pairs(Tiny):
        def forward(self, batch):
            self.net(batch.x_s, batch.edge_index_s)
            return self.net(batch.x_t, batch.edge_index_t)

    graphs = make_graph(), make_graph(30, seed=1)
    pair = Pair()
    for name, graph in zip("st", graphs, strict=True):
        pair[f"x_{name}"], pair[f"edge_index_{name}"] = graph.x, graph.edge_index
    loader = DataLoader([pair, pair], batch_size=2, follow_batch=["x_s", "x_t"])
    callback = quantize(BY_DEGREE)
    make_trainer(callback).predict(Pairs(), loader)
    first, second = (
        expected_counts(degree(graph.edge_index[1], graph.num_nodes)) for graph in graphs
    )
    assert counts_of(callback) == [2 * count for count in (*first, *second)]


class Hetero(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.conv = HeteroConv({("user", "rates", "item"): SAGEConv((4, 6), 2)})
        self.lin = torch.nn.Linear(6, 2)

    def predict_step(self, batch, batch_idx):
        self.lin(batch["item"].x)
        return self.conv(batch.x_dict, batch.edge_index_dict)


@pytest.mark.parametrize("stored", [True, False])
def test_nodes_of_several_types_have_their_own_degrees(stored):
    batch = HeteroData()
    batch["user"].x, batch["item"].x = torch.randn(12, 4), torch.randn(7, 6)
    edges = torch.stack([torch.arange(12), torch.arange(12) % 2])
    batch["user", "rates", "item"].edge_index = edges
    layers = "conv.convs.<user___rates___item>"
    callback = quantize(BitPlan(features={layers: [8, 2], "lin": 4}, degree_splits=[5]))
    if stored:
        batch["user"].deg = torch.arange(12)
        batch["item"].deg = torch.arange(7)
    predict(callback, batch, Hetero())
    users, items = ([5, 7], [5, 2]) if stored else ([12, 0], [5, 2])
    assert counts_of(callback, layers) == users + items
    assert sum(counts_of(callback, "lin")) == 7


def test_random_node_loader_carries_the_degrees_of_the_whole_graph():
    callback, graph = quantize(BY_DEGREE), make_graph(60, with_degrees=True)
    seen = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(counts_of(callback) == expected_counts(batch.deg))

    loader = RandomNodeLoader(graph, num_parts=3, shuffle=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*degrees are counted.*")
        make_trainer(callback, Watch()).fit(make_module(), loader)
    assert seen == [True] * 6


class WholeGraph(L.LightningDataModule):
    def __init__(self, data, batch):
        super().__init__()
        self.data, self.batch = data, batch

    def predict_dataloader(self):
        return FullGraphLoader(self.batch)


def test_a_sampled_batch_is_looked_up_in_the_whole_graph_by_n_id():
    callback, graph = quantize(BY_DEGREE), make_graph(60)
    batch, nodes = sampled(graph)
    batch.n_id = nodes.flip(0)
    predict(callback, batch, datamodule=WholeGraph(graph, batch))
    degrees = degree(graph.edge_index[1], 60)[batch.n_id]
    assert counts_of(callback) == expected_counts(degrees)
    assert expected_counts(degrees) != expected_counts(degree(batch.edge_index[1], 20))


def test_quantiles_are_those_of_the_whole_graph():
    callback, graph = quantize(BitPlan(features=[8, 2], degree_quantiles=[0.5])), make_graph(60)
    batch, nodes = sampled(graph)
    batch.n_id = nodes
    predict(callback, batch, datamodule=WholeGraph(graph, batch))
    degrees = degree(graph.edge_index[1], 60)
    assert callback.quantization.context.splits == (int(degrees.sort().values[30]),)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32])
def test_a_stored_degree_is_believed(dtype):
    callback, graph = quantize(BY_DEGREE), make_graph(60, with_degrees=True)
    graph.deg = graph.deg.to(dtype)
    batch, _ = sampled(graph)
    predict(callback, batch)
    assert counts_of(callback) == expected_counts(graph.deg[:20])


def test_the_attribute_of_degrees_can_have_another_name():
    callback, graph = quantize(BY_DEGREE, degree_attr="in_deg"), make_graph()
    graph.in_deg = torch.full((40,), 9)
    predict(callback, graph)
    assert counts_of(callback) == [0, 40]


def test_a_sampled_batch_without_degrees_warns_once():
    callback = quantize(BY_DEGREE)
    batch, _ = sampled(make_graph(60))
    with pytest.warns(UserWarning, match=r"no node attribute 'deg'.*data\.deg = ") as caught:
        fit(make_trainer(callback, max_epochs=3), make_module(), batch)
    assert sum("no node attribute" in str(w.message) for w in caught) == 1
    assert counts_of(callback) == expected_counts(degree(batch.edge_index[1], 20))


def test_a_plan_without_degrees_does_not_ask_for_them():
    batch, _ = sampled(make_graph(60))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*degree.*")
        fit(make_trainer(quantize(4)), make_module(), batch)


class Trimmed(L.LightningModule):
    """The second layer sees the seeds and their neighbours alone."""

    def __init__(self):
        super().__init__()
        self.net = GraphSAGE(8, 16, 2, 3)

    def predict_step(self, batch: Data, batch_idx):
        x = self.net.convs[0](batch.x, batch.edge_index)[:12].relu()
        edges = batch.edge_index[:, (batch.edge_index < 12).all(0)]
        return self.net.convs[1](x, edges)


def test_layers_on_trimmed_graphs_keep_the_degrees_of_the_leading_nodes():
    callback, graph = quantize(BY_DEGREE), make_graph(with_degrees=True)
    predict(callback, graph, Trimmed())
    assert counts_of(callback, "net.convs.1") == expected_counts(graph.deg[:12])
