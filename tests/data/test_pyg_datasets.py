import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset

from lit_gnncompress.data.pyg_datasets import relocated


class Graphs(InMemoryDataset):
    """Downloads and processes as PyG's own data sets do, but for an interruption."""

    interrupted = None
    processed_times = 0

    def __init__(self, root):
        super().__init__(str(root))
        self.load(self.processed_paths[0])

    raw_file_names = ("x.pt", "y.pt")
    processed_file_names = "data.pt"

    def download(self):
        for path in self.raw_paths:
            torch.save(torch.ones(4, 2), path)
        self.interrupt("download")

    def process(self):
        Graphs.processed_times += 1
        x, y = map(torch.load, self.raw_paths)
        self.save([Data(x=x, y=y)], self.processed_paths[0])
        self.interrupt("process")

    def interrupt(self, where):
        if self.interrupted == where:
            path = {"download": self.raw_paths, "process": self.processed_paths}[where][-1]
            os.truncate(path, 100)
            raise KeyboardInterrupt


@pytest.fixture
def graphs(tmp_path, monkeypatch):
    monkeypatch.setattr(Graphs, "processed_times", 0)
    return relocated(Graphs, tmp_path / "processed", tmp_path / "raw")


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_files_are_where_they_were_put(graphs, tmp_path):
    for _ in range(2):  # made, then read
        assert graphs(tmp_path)[0].x.shape == (4, 2)
    assert files(tmp_path / "raw") == ["x.pt", "y.pt"]
    assert files(tmp_path / "processed") == ["data.pt", "pre_filter.pt", "pre_transform.pt"]
    assert Graphs.processed_times == 1


def test_raw_files_are_where_pyg_expects_them(tmp_path):
    assert len(relocated(Graphs, tmp_path / "processed")(tmp_path / "root")) == 1
    assert files(tmp_path / "root" / "raw") == ["x.pt", "y.pt"]


@pytest.mark.parametrize(("where", "folder"), [("download", "raw"), ("process", "processed")])
def test_what_is_interrupted_leaves_nothing_that_is_read(
    where, folder, graphs, tmp_path, monkeypatch
):
    monkeypatch.setattr(Graphs, "interrupted", where)
    with pytest.raises(KeyboardInterrupt):
        graphs(tmp_path)
    assert not files(tmp_path / folder)
    monkeypatch.setattr(Graphs, "interrupted", None)
    assert graphs(tmp_path)[0].x.shape == (4, 2)


@pytest.mark.parametrize("folder", ["raw", "processed"])
def test_what_a_killed_process_left_is_not_used(folder, graphs, tmp_path):
    left = tmp_path / folder / ".unfinished"
    left.mkdir(parents=True)
    for name in ("x.pt", "data.pt", "other.pt"):
        (left / name).write_bytes(b"half")
    assert graphs(tmp_path)[0].x.shape == (4, 2)
    assert not {".unfinished", "other.pt"} & {*files(tmp_path / folder)}


def test_one_process_makes_the_files_and_others_wait(graphs, tmp_path):
    def load(_):
        return relocated(Graphs, tmp_path / "processed", tmp_path / "raw")(tmp_path)[0].x.sum()

    with ThreadPoolExecutor(4) as pool:
        assert [*map(int, pool.map(load, range(8)))] == [8] * 8
    assert Graphs.processed_times == 1
