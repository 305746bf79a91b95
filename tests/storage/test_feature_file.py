import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from lit_gnncompress.kernels import pack_bits
from lit_gnncompress.storage import PackedTensor, npy_rows, pack
from lit_gnncompress.storage.codecs import (
    DenseCodec,
    FloatCodec,
    GapCodec,
    SparseCodec,
    choose_codec,
)
from lit_gnncompress.storage.container import Container, ContainerError
from lit_gnncompress.storage.container_writer import write_container
from lit_gnncompress.storage.feature_file import load_features, open_features, save_features
from lit_gnncompress.storage.streaming import pack_file


def codes(rows, columns, share, highest):
    torch.manual_seed(0)
    drawn = torch.randint(1, highest + 1, (rows, columns), dtype=torch.uint8)
    return drawn * (torch.rand(rows, columns) < share)


def dense(by_column=False, ranges=20):
    lo, scale = torch.randn(ranges), torch.rand(ranges) + 0.1
    return DenseCodec(pack_bits(codes(20, 20, 0.9, 7), 3), lo, scale, 3, 20, by_column)


def sparse(share, highest, kind):
    lo, scale = torch.zeros(1), torch.full((1,), 0.5)
    found = choose_codec(codes(60, 500, share, highest), 3, lo, scale, allow_gaps=kind is GapCodec)
    assert type(found) is kind
    return found


CODECS = {
    "dense": dense,
    "dense, one range": lambda: dense(ranges=1),
    "dense, by column": lambda: dense(by_column=True),
    "float": lambda: FloatCodec(torch.randn(20, 20)),
    "sparse binary": lambda: sparse(0.004, 1, SparseCodec),
    "sparse values": lambda: sparse(0.004, 7, SparseCodec),
    "gaps binary": lambda: sparse(0.02, 1, GapCodec),
    "gaps values": lambda: sparse(0.02, 7, GapCodec),
}


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec(codec, tmp_path):
    x = PackedTensor([CODECS[codec]()])
    size = save_features(tmp_path / "x", x)
    assert size == (tmp_path / "x").stat().st_size
    rows = torch.tensor([3, 3, 0, 19])
    for found in (load_features(tmp_path / "x"), open_features(tmp_path / "x", verify=True)):
        assert type(found.blocks[0]) is type(x.blocks[0])
        assert torch.equal(found.dequantize(), x.dequantize())
        assert torch.equal(found[rows].dequantize(), x.dequantize()[rows])
        assert found.packed_bytes == x.packed_bytes


def test_buckets(tmp_path):
    x = torch.randn(50, 9)
    packed = pack(x, [8, 32, 2], degrees=torch.arange(50) % 7, degree_splits=[2, 5])
    save_features(tmp_path / "x", packed)
    for found in (load_features(tmp_path / "x"), open_features(tmp_path / "x")):
        assert found.bits == (8, 32, 2)
        assert torch.equal(found.dequantize(), packed.dequantize())


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing(shape, tmp_path):
    save_features(tmp_path / "x", pack(torch.zeros(shape), 4))
    assert open_features(tmp_path / "x").dequantize().shape == shape


def test_only_packed_features_are_saved(tmp_path):
    with pytest.raises(TypeError, match=r"pack it first"):
        save_features(tmp_path / "x", torch.ones(2, 2))


def test_a_damaged_file(tmp_path):
    path = tmp_path / "x"
    save_features(path, pack(torch.randn(100, 10), 4))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ContainerError, match="damaged"):
        load_features(path)
    with pytest.raises(ContainerError, match="damaged"):
        open_features(path, verify=True)
    open_features(path)


@pytest.mark.parametrize("use", ["gather", "linear", "take"])
def test_damaged_buckets_are_noticed_where_rows_are_used(use, tmp_path):
    path = tmp_path / "x"
    degrees = torch.arange(100)
    x = pack(torch.randn(100, 10), (8, 4), degrees=degrees, degree_splits=[50])
    save_features(path, x)
    data, bucket = path.read_bytes(), x.bucket.numpy().tobytes()
    at = data.index(bucket)
    path.write_bytes(data[:at] + bytes([1 - bucket[0]]) + data[at + 1 :])
    found = open_features(path)
    use = {
        "gather": lambda: found[torch.tensor([3])].dequantize(),
        "linear": lambda: F.linear(found, torch.ones(2, 10)),
        "take": lambda: found.take(torch.tensor([3])),
    }[use]
    for _ in range(2):  # not the first time alone
        with pytest.raises(ContainerError, match=r"damaged: it has 50 rows of bucket 0.* of 49"):
            use()


@pytest.mark.parametrize("codec", ["sparse binary", "sparse values"])
def test_a_damaged_column_is_seen_without_checksums(tmp_path, codec):  # and is no crash
    path = tmp_path / "x"
    save_features(path, PackedTensor([CODECS[codec]()]))
    data = bytearray(path.read_bytes())
    place = Container(path, "features").entries["blocks.0.columns"].begin
    data[place + 1] = 0xFF
    path.write_bytes(data)
    with pytest.raises(ContainerError, match="holds no packed features"):
        open_features(path)


@pytest.mark.parametrize("meta", [{}, {"blocks": [{"codec": "none"}]}, {"blocks": 1}])
def test_a_file_of_something_else(tmp_path, meta):
    write_container(tmp_path / "x", {"a": torch.ones(2)}, meta, "features")
    with pytest.raises(ContainerError, match="holds no packed features"):
        load_features(tmp_path / "x")


# --- in worker processes ------------------------------------------------------------------------


def test_it_pickles_as_its_path(tmp_path):
    path = tmp_path / "x"
    save_features(path, pack(torch.randn(3000, 20), 4))
    x = open_features(path)
    text = pickle.dumps(x)
    assert len(text) < 400
    assert torch.equal(pickle.loads(text).dequantize(), x.dequantize())
    save_features(path, pack(torch.randn(3000, 20), 4))
    with pytest.raises(ContainerError, match="has been replaced"):
        pickle.loads(text)


class Batches:
    """Samples rows in the worker."""

    def __init__(self, x):
        self.x = x

    def __call__(self, rows):
        return torch.tensor(rows), self.x[torch.tensor(rows)].dequantize()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_workers(tmp_path, context):
    save_features(tmp_path / "x", pack(torch.randn(64, 20), 4))
    x = open_features(tmp_path / "x")
    loader = DataLoader(
        range(64), 16, collate_fn=Batches(x), num_workers=2, multiprocessing_context=context
    )
    for rows, values in loader:
        assert torch.equal(values, x.dequantize()[rows])


# --- files larger than memory -------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(npy_rows, "BLOCK_BYTES", 4000)


def quiet(source, target, *args, **options):
    return pack_file(source, target, *args, progress=False, **options)


@pytest.mark.parametrize("granularity", ["row", "tensor", "column"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("shape", [(300, 17), (33, 33), (5, 2000), (1, 1), (0, 5), (7, 0)])
def test_the_codes_are_those_of_pack(small_blocks, tmp_path, shape, dtype, order, granularity):
    x = (np.random.default_rng(0).standard_normal(shape) * 3 + 1).astype(dtype)
    np.save(tmp_path / "x.npy", np.asarray(x, order=order))
    native = torch.from_numpy(x.astype(x.dtype.newbyteorder("=")))
    for bits in (1, 4, 8):
        done = quiet(
            tmp_path / "x.npy", tmp_path / "x", bits, granularity=granularity, overwrite=True
        )
        found = open_features(tmp_path / "x", verify=True)
        expected = pack(native, bits, range="minmax", granularity=granularity)
        assert torch.equal(found.dequantize(), expected.dequantize())
        assert (done.rows, done.width, done.bits) == (*shape, bits)
        assert done.bytes_before == x.nbytes
        assert done.bytes_after == (tmp_path / "x").stat().st_size
    load_features(tmp_path / "x")


def test_mse_by_row(small_blocks, tmp_path):
    x = torch.randn(100, 50)
    np.save(tmp_path / "x.npy", x.numpy())
    quiet(tmp_path / "x.npy", tmp_path / "x", 2, range="mse")
    expected = pack(x, 2, range="mse", granularity="row").dequantize()
    assert torch.equal(open_features(tmp_path / "x").dequantize(), expected)


def raw(tmp_path, mode="r", shape=(3000, 10), offset=100, order="C"):
    x = np.random.default_rng(0).standard_normal(shape).astype("f4")
    (tmp_path / "raw").write_bytes(b"?" * offset + x.tobytes(order))
    return x, np.memmap(tmp_path / "raw", "f4", mode, offset, shape, order)


@pytest.mark.parametrize("rows", [slice(None), slice(1500, 2900), slice(7, 8)])
def test_a_memmap(small_blocks, tmp_path, rows):
    x, mapped = raw(tmp_path)
    quiet(mapped[rows], tmp_path / "x", 4)
    expected = pack(torch.from_numpy(x[rows]), 4, range="minmax", granularity="row").dequantize()
    assert torch.equal(open_features(tmp_path / "x").dequantize(), expected)


def test_a_memmap_by_column(small_blocks, tmp_path):
    x, mapped = raw(tmp_path, order="F")
    quiet(mapped, tmp_path / "x", 4)
    expected = pack(torch.from_numpy(x), 4, range="minmax", granularity="row").dequantize()
    assert torch.equal(open_features(tmp_path / "x").dequantize(), expected)


def test_a_memmap_that_was_written_to(tmp_path):
    _, mapped = raw(tmp_path, "r+")
    mapped[:] = 2
    quiet(mapped, tmp_path / "x", 4)
    assert (open_features(tmp_path / "x").dequantize() == 2).all()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (lambda f: raw(f)[1][::2], ValueError, "view with gaps"),
        (lambda f: raw(f, "c")[1], ValueError, "mode 'r'"),
        (lambda f: np.ones((2, 2)), TypeError, r"pack\(x\)"),
        (lambda f: f / "none.npy", FileNotFoundError, "none"),
    ],
)
def test_other_sources(tmp_path, source, error, message):
    with pytest.raises(error, match=message):
        quiet(source(tmp_path), tmp_path / "x", 4)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones((3, 3), int), TypeError, "holds int64"),
        (np.ones(3), ValueError, "a matrix, one row for each node"),
        (np.array([[{}]]), TypeError, "holds object"),
        (np.array([[1.0, np.nan]]), ValueError, "row 0, column 1 is nan"),
        (np.full((1, 1), 1e300), ValueError, "more than float32 can hold"),
    ],
)
@pytest.mark.parametrize("granularity", ["row", "tensor", "column"])
def test_files_that_are_no_features(tmp_path, x, error, message, granularity):
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(error, match=message):
        quiet(tmp_path / "x.npy", tmp_path / "x", 4, granularity=granularity)
    assert os.listdir(tmp_path) == ["x.npy"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("granularity", ["row", "tensor", "column"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_features_that_are_not_finite(small_blocks, tmp_path, value, granularity, order):
    x = np.ones((300, 17), "f4", order)
    x[211, 13] = value
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match=rf"row 211, column 13 is {value}.*x\.npy again"):
        quiet(tmp_path / "x.npy", tmp_path / "x", 4, granularity=granularity)
    assert os.listdir(tmp_path) == ["x.npy"]


@pytest.mark.parametrize("size", [0, 5, 60, 127, 200])
def test_a_file_that_is_cut_off(tmp_path, size):
    np.save(tmp_path / "x.npy", np.ones((10, 10)))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:size])
    with pytest.raises(ValueError, match=r"x\.npy is (cut off|no \.npy file)"):
        quiet(tmp_path / "x.npy", tmp_path / "x", 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, "bits=9"),
        ({"granularity": "auto"}, "granularity is 'row', 'tensor' or 'column'"),
        ({"range": "percentile"}, "range is 'minmax' or 'mse'"),
        ({"range": "mse", "granularity": "tensor"}, "it is for rows alone"),
    ],
)
def test_bad_choices(tmp_path, options, message):
    np.save(tmp_path / "x.npy", np.ones((10, 10)))
    with pytest.raises(ValueError, match=message):
        quiet(tmp_path / "x.npy", tmp_path / "x", **options)


@pytest.mark.parametrize("bits", [[4, 2], "4", 4.0, True])
def test_bits_that_are_no_integer(tmp_path, bits):
    with pytest.raises(TypeError, match=r"bits=.* one number of bits"):
        quiet(tmp_path / "x.npy", tmp_path / "x", bits)


def test_a_target_that_is_there(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((10, 10)))
    quiet(tmp_path / "x.npy", tmp_path / "x", 4)
    with pytest.raises(FileExistsError, match="overwrite it"):
        quiet(tmp_path / "x.npy", tmp_path / "x", 4)
    quiet(tmp_path / "x.npy", tmp_path / "x", 8, overwrite=True)
    assert open_features(tmp_path / "x").bits == (8,)
    with pytest.raises(ValueError, match="is the source"):
        quiet(tmp_path / "x.npy", tmp_path / "x.npy", 4, overwrite=True)


def test_threads_are_as_before(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((10, 10)))
    before = torch.get_num_threads()
    quiet(tmp_path / "x.npy", tmp_path / "x", 4)
    assert torch.get_num_threads() == before


# --- memory, and being killed -------------------------------------------------------------------

ROWS, WIDTH = 400_000, 256  # 410 MB


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "x.npy"
    block = np.random.default_rng(0).standard_normal((10_000, WIDTH), dtype="f4")
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (ROWS, WIDTH)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(ROWS // len(block)):
            file.write(block.data)
    yield path
    path.unlink()


def run(code, **options):
    start = """
        import resource, sys, torch
        from lit_gnncompress.storage import feature_file, streaming
        torch.ops.lit_gnncompress  # and what the first call imports
        from lit_gnncompress.kernels.cpu import gather_dequantize, quantize_pack
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = peak()
    """
    code = textwrap.dedent(start) + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", code], text=True, **options)


@pytest.mark.parametrize("granularity", ["row", "column"])
def test_memory_stays_bounded(large, tmp_path, granularity):
    target = tmp_path / "x"
    code = f"""
        streaming.pack_file({str(large)!r}, {str(target)!r}, 4, granularity={granularity!r})
        print(peak() - before)
    """
    child = run(code, stdout=subprocess.PIPE)
    out, _ = child.communicate(timeout=300)
    assert child.returncode == 0
    assert float(out.split()[-1]) < 250  # MB, of 410; two blocks, and copies of one
    assert target.stat().st_size < 60e6


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_sample_copies_no_more_than_a_sample(large, tmp_path):
    quiet(large, tmp_path / "x", 4)
    code = f"""
        def own():  # without pages of files, which are the system's cache
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) for line in file if "RssAnon" in line) / 1024
        x = feature_file.open_features({str(tmp_path / "x")!r})
        x[torch.arange(3)].dequantize()
        before = own()
        for _ in range(3):
            x[torch.randint(len(x), (1000,))].dequantize()
        print(own() - before)
    """
    child = run(code, stdout=subprocess.PIPE)
    out, _ = child.communicate(timeout=300)
    assert child.returncode == 0
    assert float(out.split()[-1]) < 10  # MB, of 54


def test_killed_half_way(large, tmp_path):
    target, unfinished = tmp_path / "x", tmp_path / ".x.unfinished"
    child = run(f"streaming.pack_file({str(large)!r}, {str(target)!r}, 4)")
    while child.poll() is None and not unfinished.exists():
        time.sleep(0.01)
    time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert os.listdir(tmp_path) == [unfinished.name]
    with pytest.raises(ContainerError):
        Container(unfinished, "features")
    done = quiet(large, target, 4)
    assert os.listdir(tmp_path) == ["x"]
    assert load_features(target).shape == (done.rows, done.width) == (ROWS, WIDTH)
