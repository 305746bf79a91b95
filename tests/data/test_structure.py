import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.sparse import csc_matrix

from lit_gnncompress.data import GraphDataModule, load_graph
from lit_gnncompress.data.structure import load_npz_structure

# name: nodes, edges (both ways), classes, labelled nodes
SIZES = {
    "Cornell5": (18660, 1581554, 2, 16822),
    "ProNE-DBLP": (51264, 255936, 60, 51264),
    "Computers": (13752, 491722, 10, 13752),
    "PubMed": (19717, 88648, 3, 19717),
}


@pytest.mark.parametrize("name", SIZES)
def test_graph_without_features_has_its_published_size(name, real_root, tmp_path):
    data = load_graph(name, real_root, tmp_path, features=False)
    sizes = (data.num_nodes, data.num_edges, int(data.y.max()) + 1, int((data.y >= 0).sum()))
    assert sizes == SIZES[name]
    assert "x" not in data
    assert data.is_undirected()
    assert not data.has_self_loops()


def test_edges_without_features_are_those_with(real_root, tmp_path):
    for name in ("Computers", "CitationFull-Cora_ML"):
        whole = load_graph(name, real_root, tmp_path)
        bare = load_graph(name, real_root, tmp_path, features=False)
        assert torch.equal(bare.edge_index, whole.edge_index)
        assert torch.equal(bare.y, whole.y)


def test_large_features_are_not_read(real_root, tmp_path):
    data = load_graph("Physics", real_root, tmp_path, features=False)
    assert (data.num_nodes, data.num_edges) == (34493, 495924)
    assert not list(tmp_path.iterdir())  # PyG would have processed them


def test_digits_lose_their_pixels_and_nothing_else():
    bare, whole = load_graph("digits", features=False), load_graph("digits")
    assert torch.equal(bare.edge_index, whole.edge_index)
    assert bare.num_nodes == whole.num_nodes
    module = GraphDataModule(features=False)
    assert (module.num_features, module.num_nodes, module.num_classes) == (0, 1797, 10)


def test_unknown_gender_is_no_class(tmp_path):
    edges = csc_matrix(([1.0] * 4, ([0, 1, 1, 2], [1, 0, 2, 1])), (3, 3))
    info = np.array([[1, 2, 0], [1, 0, 0], [1, 1, 0]], dtype=np.uint16)
    (tmp_path / "Facebook100").mkdir()
    savemat(tmp_path / "Facebook100/Cornell5.mat", {"A": edges, "local_info": info})
    data = load_graph("Cornell5", tmp_path)
    assert data.y.tolist() == [1, -1, 0]
    assert data.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]


def test_classes_of_dblp_are_lines_of_members(tmp_path):
    folder = tmp_path / "ProNE-DBLP"
    folder.mkdir()
    (folder / "dblp.ungraph").write_text("0\t1\n1\t2\n")
    (folder / "dblp.cmty").write_text("1\n0\t2\n")
    data = load_graph("prone-dblp", tmp_path)
    assert data.y.tolist() == [1, 0, 1]
    assert data.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]


def test_missing_file_says_where_it_belongs(monkeypatch, tmp_path):
    def no_network(source):
        raise OSError("network is unreachable")

    monkeypatch.setattr("lit_gnncompress.data.structure.urlopen", no_network)
    with pytest.raises(OSError, match=r"Cornell5.mat is missing.*network is unreachable.*`root=`"):
        load_graph("Cornell5", tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.name.endswith(".mat")]


def test_download_is_kept(monkeypatch, tmp_path):
    source = tmp_path / "elsewhere"
    source.write_text("0 1\n")
    asked = []

    def fetch(address):
        asked.append(address)
        return source.open("rb")

    monkeypatch.setattr("lit_gnncompress.data.structure.urlopen", fetch)
    for _ in range(2):
        data = load_graph("ProNE-DBLP", tmp_path / "root")
        assert data.num_nodes == 2
    assert len(asked) == 2  # a file each, once


def test_no_single_raw_file_is_no_structure(tmp_path):
    from lit_gnncompress.data.folders import Folders

    assert load_npz_structure("Amazon", "Photo", Folders.resolve(tmp_path, tmp_path)) is None
