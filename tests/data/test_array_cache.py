import json

import numpy as np
import pytest

from lit_gnncompress.data.array_cache import ArrayCache, NpyWriter


def make(folder):
    np.save(folder / "numbers.npy", np.arange(1000))
    return {"sum": 499500}


def refuse(folder):
    raise AssertionError("made again")


@pytest.fixture
def cache(tmp_path):
    cache = ArrayCache(tmp_path, {"size": 5, "names": ("a",)})
    cache.open(make)
    return cache


def test_arrays_are_made_once(cache, tmp_path):
    arrays, facts = ArrayCache(tmp_path, {"size": 5, "names": ("a",)}).open(refuse)
    assert isinstance(arrays["numbers"], np.memmap)
    assert arrays["numbers"].tolist() == list(range(1000))
    assert facts == {"sum": 499500}


def test_another_key_is_another_folder(cache, tmp_path):
    with pytest.raises(AssertionError, match="made again"):
        ArrayCache(tmp_path, {"size": 6, "names": ("a",)}).open(refuse)


def flip(folder):
    data = bytearray((folder / "numbers.npy").read_bytes())
    data[-3] ^= 4
    (folder / "numbers.npy").write_bytes(data)


def cut(folder):
    data = (folder / "numbers.npy").read_bytes()
    (folder / "numbers.npy").write_bytes(data[:-8])


def change(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["facts"]["sum"] = 1
    (folder / "manifest.json").write_text(json.dumps(manifest))


def garble(folder):
    (folder / "manifest.json").write_bytes(b"\xff[1]")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "numbers.npy does not match its checksum"),
        (cut, "numbers.npy has 8,120 bytes and not 8,128"),
        (change, "manifest.json was changed"),
        (garble, "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda folder: (folder / "numbers.npy").unlink(), "numbers.npy is missing"),
    ],
)
def test_damage_is_noticed_and_mended(damage, message, cache):
    damage(cache.folder)
    with pytest.warns(UserWarning, match=rf"is made anew: .*{message}"):
        arrays, facts = cache.open(make)
    assert arrays["numbers"].tolist() == list(range(1000))
    assert cache.open(refuse)[1] == facts == {"sum": 499500}


def test_sizes_alone_are_checked_on_request(cache):
    flip(cache.folder)
    cache.open(refuse, check=False)
    cut(cache.folder)
    with pytest.warns(UserWarning, match="made anew"):
        cache.open(make, check=False)


def test_a_failure_leaves_nothing(tmp_path):
    def fail(folder):
        np.save(folder / "numbers.npy", np.arange(3))
        raise OSError("full")

    cache = ArrayCache(tmp_path, {})
    with pytest.raises(OSError, match="full"):
        cache.open(fail)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("shape", [(), (3,), (0,)])
def test_rows_are_written_read_and_overwritten(shape, tmp_path):
    writer = NpyWriter(tmp_path / "rows.npy", np.int32, shape)
    rows = np.random.default_rng(0).integers(100, size=(40, *shape)).astype(np.int32)
    for block in (rows[:15], rows[15:15], rows[15:]):
        writer.append(block)
    assert np.array_equal(writer.read(7, 30), rows[7:30])
    writer.overwrite(7, rows[7:30] + 1)
    writer.append(rows[:2])
    writer.close()
    rows[7:30] += 1
    expected = np.concatenate([rows, rows[:2]])
    found = np.load(tmp_path / "rows.npy", mmap_mode="r" if expected.size else None)
    assert found.dtype == np.int32
    assert np.array_equal(found[:7], expected[:7])
    assert np.array_equal(found[7:40], expected[7:40])
    assert len(found) == 42
