import pickle

import pytest
import torch
from torch_geometric.data import Data, HeteroData, TensorAttr
from torch_geometric.loader import NeighborLoader, NodeLoader
from torch_geometric.sampler import BaseSampler, SamplerOutput
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

from lit_gnncompress.storage import PackedTensor, pack
from lit_gnncompress.storage.feature_file import save_features
from lit_gnncompress.storage.feature_store import PackedFeatureStore

N, F = 40, 12
EDGES = torch.stack([torch.arange(N), (torch.arange(N) + 1) % N])
LABELS = torch.arange(N) % 3


@pytest.fixture
def x():
    torch.manual_seed(0)
    return pack(torch.randn(N, F), 4)


@pytest.fixture
def store(x, tmp_path):
    save_features(tmp_path / "x", x)
    return PackedFeatureStore({"x": tmp_path / "x", "y": LABELS})


@pytest.mark.parametrize(
    "index",
    [
        None,
        slice(None),
        slice(3, 30, 4),
        torch.tensor([5, 5, 0]),
        torch.tensor([], dtype=torch.long),
        torch.arange(N) % 2 == 0,
        7,
    ],
)
def test_rows(store, x, index):
    rows = slice(None) if index is None else index
    for name, whole in (("x", x.dequantize()), ("y", LABELS)):
        found = store.get_tensor(None, name, index)
        assert torch.equal(found, whole[rows])
        assert store.get_tensor_size(None, name, index) == tuple(whole[rows].shape)


def test_views(store, x):
    assert torch.equal(store[None, "x", torch.tensor([2])], x.dequantize()[2:3])
    assert torch.equal(store[None, "x"][torch.tensor([2])], x.dequantize()[2:3])
    assert [(a.group_name, a.attr_name) for a in store.get_all_tensor_attrs()] == [
        (None, "x"),
        (None, "y"),
    ]
    assert store.get_tensor_size(None, "x") == (N, F)
    assert repr(store) == "PackedFeatureStore(x: (40, 12), y: (40,))"


def test_a_path_is_x(store, tmp_path):
    (attr,) = PackedFeatureStore(tmp_path / "x").get_all_tensor_attrs()
    assert attr.attr_name == "x"


def test_what_cannot_be(store, tmp_path):
    with pytest.raises(IndexError, match="40"):
        store.get_tensor(None, "x", torch.tensor([40]))
    with pytest.raises(KeyError, match=r"no features 'paper\.x': there are x, y"):
        store.get_tensor("paper", "x", None)
    with pytest.raises(TypeError, match="cannot be written"):
        store.put_tensor(torch.ones(1), TensorAttr(None, "x", None))
    with pytest.raises(TypeError, match="cannot be removed"):
        store.remove_tensor(None, "x", None)
    with pytest.raises(FileNotFoundError):
        PackedFeatureStore(tmp_path / "none")


def test_it_pickles_without_the_features(store, x):
    text = pickle.dumps(PackedFeatureStore({"x": store._features[None, "x"]}))
    assert len(text) < 600
    assert torch.equal(pickle.loads(text).get_tensor(None, "x", None), x.dequantize())


# --- loaders ------------------------------------------------------------------------------------


class Successors(BaseSampler):
    """Seeds and the nodes that follow them: a sampler without compiled parts."""

    def sample_from_nodes(self, index, **kwargs):
        node = torch.cat([index.node, (index.node + 1) % N]).unique()
        place = torch.full((N,), -1).index_copy(0, node, torch.arange(len(node)))
        row, col = place[EDGES]
        kept = (row >= 0) & (col >= 0)
        return SamplerOutput(
            node, row[kept], col[kept], edge=None, metadata=(index.input_id, index.time)
        )

    def sample_from_edges(self, index, **kwargs):
        raise NotImplementedError


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("filter_per_worker", [False, True])
def test_a_loader_dequantizes_what_it_samples(store, x, workers, filter_per_worker, monkeypatch):
    whole, gather_rows = x.dequantize(), PackedTensor.gather_rows

    def of_a_batch(self, index):
        assert len(index) == 11
        return gather_rows(self, index)

    monkeypatch.setattr(PackedTensor, "gather_rows", of_a_batch)
    graph = Data(edge_index=EDGES, num_nodes=N)
    loader = NodeLoader(
        (store, graph),
        Successors(),
        input_nodes=torch.arange(N),
        batch_size=10,
        num_workers=workers,
        filter_per_worker=filter_per_worker,
    )
    batches = list(loader)
    assert len(batches) == 4
    for begin, batch in enumerate(batches):
        nodes = torch.arange(10 * begin, 10 * begin + 11) % N
        assert torch.equal(batch.x, whole[nodes.sort().values])
        assert torch.equal(batch.y, LABELS[nodes.sort().values])


@pytest.mark.skipif(not (WITH_PYG_LIB or WITH_TORCH_SPARSE), reason="needs pyg-lib or torch-sparse")
def test_neighbor_loader(store, x):
    graph = Data(num_nodes=N)
    graph.put_edge_index(EDGES, edge_type=None, layout="coo", size=(N, N))
    loader = NeighborLoader((store, graph), [2, 2], input_nodes=torch.arange(N), batch_size=8)
    for batch in loader:
        assert torch.equal(batch.x, x.dequantize()[batch.n_id])


def test_node_types(tmp_path, x):
    save_features(tmp_path / "x", x)
    store = PackedFeatureStore({("paper", "x"): tmp_path / "x", ("author", "x"): x})
    assert {a.group_name for a in store.get_all_tensor_attrs()} == {"paper", "author"}
    data = HeteroData()
    data["paper"].x = store["paper", "x", torch.tensor([1, 2])]
    assert data["paper"].x.shape == (2, F)
