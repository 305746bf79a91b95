import os

import pytest
import torch
from torch_geometric.datasets import Planetoid

from lit_gnncompress.data import available_graphs, load_graph
from lit_gnncompress.data.catalog import canonical_name

# name: nodes, edges (both ways), features, classes, as the sources state them
SIZES = {
    "Cora": (2708, 10556, 1433, 7),
    "CiteSeer": (3327, 9104, 3703, 6),
    "PubMed": (19717, 88648, 500, 3),
    "Computers": (13752, 491722, 767, 10),
    "CitationFull-Cora_ML": (2995, 16316, 2879, 7),
    "Tolokers": (11758, 1038000, 10, 2),
}


def files(folder):
    return {os.path.join(place, name) for place, _, names in os.walk(folder) for name in names}


@pytest.mark.parametrize("name", SIZES)
def test_graph_has_its_published_size_and_its_raw_folder_stays_clean(name, real_root, tmp_path):
    before = files(real_root)
    for _ in range(2):  # processed, then read back
        data = load_graph(name, real_root, tmp_path)
        sizes = (data.num_nodes, data.num_edges, data.num_features, int(data.y.max()) + 1)
        assert sizes == SIZES[name]
    assert files(real_root) == before
    assert files(tmp_path)


def test_root_comes_from_the_environment(real_root, tmp_path):
    assert load_graph("Cora", processed_dir=tmp_path).train_mask.sum() == 140


def test_names_match_in_any_case():
    assert canonical_name("cITEsEER") == "CiteSeer"
    assert [canonical_name(name.upper()) for name in available_graphs()] == available_graphs()


@pytest.mark.parametrize(
    ("name", "near"),
    [("Corra", "'Cora'"), ("cora_ml", "'CitationFull-Cora_ML'"), ("arxiv", "'ogbn-arxiv'")],
)
def test_unknown_name_lists_near_and_all_names(name, near):
    with pytest.raises(ValueError, match=f"No graph is named {name!r}. Did you mean.*{near}") as e:
        load_graph(name)
    assert all(known in str(e.value) for known in available_graphs())


def test_failed_download_says_where_files_belong(monkeypatch, tmp_path):
    def no_network(self):
        raise ConnectionError("network is unreachable")

    monkeypatch.setattr(Planetoid, "download", no_network)
    with pytest.raises(OSError, match=r"network is unreachable.*Planetoid.*`root=`"):
        load_graph("Cora", tmp_path / "empty", tmp_path / "processed")


def test_digits_need_no_folder(tmp_path):
    data = load_graph("digits", tmp_path / "none", tmp_path / "none")
    assert torch.equal(data.y.unique(), torch.arange(10))
    assert not files(tmp_path)
