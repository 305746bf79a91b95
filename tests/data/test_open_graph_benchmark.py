import sys
import types

import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.utils import is_undirected

from lit_gnncompress.data import load_graph


class PublishedGraph(InMemoryDataset):
    """Saves, loads and splits as ogb 1.3.6 does."""

    def __init__(self, name, root):
        super().__init__(f"{root}/{name}")
        self.data, self.slices = torch.load(self.processed_paths[0])

    processed_file_names = "geometric_data_processed.pt"

    def process(self):
        edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
        data = Data(x=torch.rand(4, 2), edge_index=edge_index, y=torch.tensor([[0], [1], [1], [0]]))
        torch.save(self.collate([data]), self.processed_paths[0])

    def get_idx_split(self):
        return {
            "train": torch.tensor([0, 3]),
            "valid": torch.tensor([1]),
            "test": torch.tensor([2]),
        }


@pytest.fixture
def ogb(monkeypatch):
    package = types.ModuleType("ogb.nodeproppred")
    package.PygNodePropPredDataset = PublishedGraph
    monkeypatch.setitem(sys.modules, "ogb", types.ModuleType("ogb"))
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred", package)


def test_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ogb", None)
    with pytest.raises(ModuleNotFoundError, match=r"'ogbn-arxiv' .* `pip install ogb`"):
        load_graph("ogbn-arxiv", tmp_path, tmp_path)


@pytest.mark.usefixtures("ogb")
def test_graph_is_undirected_with_masks_and_flat_labels(tmp_path):
    data = load_graph("ogbn-arxiv", tmp_path / "raw", tmp_path / "processed")
    assert is_undirected(data.edge_index)
    assert data.y.tolist() == [0, 1, 1, 0]
    assert data.train_mask.tolist() == [True, False, False, True]
    assert data.val_mask.tolist() == [False, True, False, False]
    assert data.test_mask.tolist() == [False, False, True, False]
