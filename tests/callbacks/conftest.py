import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(tmp_path, monkeypatch):
    """Small matrices are slower on several threads; what Lightning leaves goes to a folder."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
