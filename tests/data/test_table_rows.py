import numpy as np
import pytest
import torch

from lit_gnncompress.data import table_rows
from lit_gnncompress.data.table_rows import BlockOrder, TableLoader, TableRows


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(table_rows, "BLOCK_ROWS", 8)
    monkeypatch.setattr(table_rows, "WINDOW_BLOCKS", 4)


def make_rows(n=100, **arguments):
    numbers = np.arange(n)
    sparse = np.stack([numbers, numbers % 7], axis=1).astype(np.int32)
    label = (numbers % 3 == 0).astype(np.uint8)
    known = {"num_train": n, **arguments}
    return TableRows(numbers[:, None].astype(np.float32), sparse, label, (n, 7), **known)


def taken(order):
    rows = np.arange(10_000)
    return [rows[batch].tolist() for batch in order]


@pytest.mark.parametrize("rows", [slice(10, 95), np.arange(3, 190, 2)])
@pytest.mark.parametrize("batch_size", [1, 8, 30, 1000])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_row_is_in_one_batch(rows, batch_size, shuffle):
    order = BlockOrder(rows, batch_size, shuffle)
    batches = taken(order)
    assert len(batches) == len(order)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    every = [row for batch in batches for row in batch]
    assert sorted(every) == np.arange(10_000)[rows].tolist()
    assert (every == sorted(every)) != shuffle


def test_shuffles_by_seed_and_epoch():
    def order(seed, epoch):
        order = BlockOrder(slice(0, 100), 10, True, seed)
        order.set_epoch(epoch)
        return taken(order)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_a_window_mixes_far_blocks_and_nothing_else():
    batches = taken(BlockOrder(slice(0, 4096), 32, True))
    for batch in batches:
        blocks = {row // 8 for row in batch}
        assert len(blocks) <= 4  # what one window has, so that few places of a file are read
        assert max(blocks) - min(blocks) > 4
        assert batch != sorted(batch)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_the_batches(world_size, shuffle):
    shares = [
        taken(BlockOrder(slice(0, 100), 10, shuffle, 5, rank, world_size))
        for rank in range(world_size)
    ]
    every = sorted(row for share in shares for batch in share for row in batch)
    if shuffle:  # none waits for another
        assert {len(share) for share in shares} == {10 // world_size}
        assert len(set(every)) == len(every) == 10 // world_size * world_size * 10
    else:
        assert every == list(range(100))
    for rank, share in enumerate(shares):
        assert len(BlockOrder(slice(0, 100), 10, shuffle, 5, rank, world_size)) == len(share)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num_rows", [5, 100])
def test_every_process_gets_a_batch(num_rows, shuffle):
    orders = [BlockOrder(slice(0, num_rows), 1000, shuffle, 0, rank, 4) for rank in range(4)]
    assert all(len(taken(order)) == len(order) >= 1 for order in orders)


def test_batches_are_tensors_of_their_own(tmp_path):
    rows = make_rows()
    np.save(tmp_path / "sparse.npy", rows.sparse)
    mapped = np.load(tmp_path / "sparse.npy", mmap_mode="r")
    rows = TableRows(rows.dense, mapped, rows.label, rows.num_embeddings, len(rows))
    for batch in TableLoader(rows, BlockOrder(slice(0, 100), 30, True)):
        dense, sparse, label = batch
        assert [part.dtype for part in batch] == [torch.float32, torch.int64, torch.float32]
        assert torch.equal(sparse[:, 0].float(), dense[:, 0])
        assert torch.equal(sparse[:, 1], sparse[:, 0] % 7)
        assert torch.equal(label, (sparse[:, 0] % 3 == 0).float())
        dense.zero_(), sparse.zero_(), label.zero_()
    assert rows.dense.sum() == 4950
    assert mapped[:, 0].sum() == 4950


@pytest.mark.parametrize("which", [slice(70, 100), np.arange(70, 100)])
def test_rows_without_label_have_none(which):
    batch = make_rows(num_train=60, num_test=20).batch(which)
    assert batch.label.isnan().tolist() == [False] * 10 + [True] * 20
