import json
import pickle
import random
import signal
import subprocess
import sys
import textwrap

import pytest
import safetensors
import torch

from lit_gnncompress.storage import container
from lit_gnncompress.storage.container import Container, ContainerError, Spec, read_container
from lit_gnncompress.storage.container_writer import ContainerWriter, write_container

TENSORS = {
    "codes": torch.arange(35, dtype=torch.uint8).view(7, 5),
    "lo": torch.randn(7),
    "rowptr": torch.arange(4),
    "columns": torch.tensor([1, 65535], dtype=torch.uint16),
    "half": torch.randn(3, 3).half(),
    "brain": torch.randn(3).bfloat16(),
    "mask": torch.tensor([True, False, True]),
    "number": torch.tensor(2.5, dtype=torch.float64),
    "none": torch.zeros(0, 4),
}
META = {"bits": [4, 2], "name": "ä"}


@pytest.fixture
def small_chunks(monkeypatch):
    for module in (container, sys.modules[ContainerWriter.__module__]):
        monkeypatch.setattr(module, "CHUNK_BYTES", 16)


@pytest.fixture
def path(tmp_path, small_chunks):
    path = tmp_path / "file.safetensors"
    write_container(path, TENSORS, META, "things")
    return path


def assert_same(tensors):
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert torch.equal(tensor, TENSORS[name])


def refused(path, data):
    path.write_bytes(data)
    with pytest.raises(ContainerError, match=str(path)) as caught:
        read_container(path, "things")
    return str(caught.value)


# --- what is written is read --------------------------------------------------------------------


def test_read(path):
    tensors, meta = read_container(path, "things")
    assert_same(tensors)
    assert meta == META


def test_map(path):
    opened = Container(path, "things")
    opened.verify()
    mapped = opened.map()
    assert_same(mapped)
    opened.sample_rows()
    assert_same(mapped)
    before = path.read_bytes()
    mapped["lo"].zero_()  # private
    assert path.read_bytes() == before


def test_any_reader_of_safetensors_opens_it(path):
    with safetensors.safe_open(path, "pt") as file:
        assert_same({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        assert json.loads(file.metadata()["meta"]) == META


def test_equal_contents_make_equal_files(path, tmp_path):
    other = tmp_path / "other.safetensors"
    write_container(other, dict(reversed(TENSORS.items())), META, "things")
    assert Container(other, "things").entries.keys() == Container(path, "things").entries.keys()
    write_container(other, TENSORS, META, "things")
    assert other.read_bytes() == path.read_bytes()


def test_data_are_aligned(path):
    for entry in Container(path, "things").entries.values():
        assert entry.begin % entry.spec.dtype.itemsize == 0


@pytest.mark.parametrize("pieces", [1, 3, 100])
def test_pieces_of_any_size_in_any_order(tmp_path, small_chunks, path, pieces):
    streamed = tmp_path / "streamed.safetensors"
    specs = {name: Spec(t.dtype, tuple(t.shape)) for name, t in TENSORS.items()}
    parts = [
        (name, part)
        for name, tensor in TENSORS.items()
        for part in tensor.reshape(-1).tensor_split(pieces)
    ]
    order = [name for name, _ in parts]
    random.Random(0).shuffle(order)
    left = {name: iter([p for n, p in parts if n == name]) for name in TENSORS}
    with ContainerWriter(streamed, specs, META, "things") as writer:
        for name in order:
            writer.write(name, next(left[name]))
    assert streamed.read_bytes() == path.read_bytes()
    assert writer.num_bytes == path.stat().st_size


def test_a_single_element_of_a_column(tmp_path):  # whose stride stays another one
    column = torch.arange(6.0).view(1, 6)[:, 2]
    write_container(tmp_path / "f", {"x": column[:1]}, {}, "things")
    assert read_container(tmp_path / "f", "things")[0]["x"].item() == 2


# --- what is damaged is refused -----------------------------------------------------------------


def test_flipped_bytes(path):
    data, chance = path.read_bytes(), random.Random(0)
    places = [*range(0, len(data), 40), *(chance.randrange(len(data)) for _ in range(1000))]
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= chance.randrange(1, 256)
        refused(path, flipped)


def test_truncation(path):
    data, chance = path.read_bytes(), random.Random(0)
    for size in [0, 7, 8, len(data) - 1, *(chance.randrange(len(data)) for _ in range(100))]:
        refused(path, data[:size])


def test_bytes_behind_the_end(path):
    assert "should have" in refused(path, path.read_bytes() + b"\0")


def test_a_damaged_header_is_seen_without_the_data(path):
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(ContainerError):
        Container(path, "things")


def test_damaged_data_are_named(path):
    data = bytearray(path.read_bytes())
    data[Container(path, "things").entries["codes"].begin + 20] ^= 1
    assert "tensor 'codes'" in refused(path, data)
    opened = Container(path, "things")  # without reading them
    with pytest.raises(ContainerError, match="tensor 'codes'"):
        opened.verify()
    assert_same(opened.read(verify=False) | {"codes": TENSORS["codes"]})


def test_a_newer_format(path, monkeypatch):
    monkeypatch.setattr(container, "VERSION", 2)
    write_container(path, TENSORS, META, "things")
    monkeypatch.undo()
    with pytest.raises(ContainerError, match=r"format version 2, .* reads version 1: update"):
        read_container(path, "things")


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_newer_format_by_hand(path, separators):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["version"] = "12"
    text = json.dumps(header, separators=separators).encode()
    message = refused(path, len(text).to_bytes(8, "little") + text + data[8 + size :])
    assert "format version 12, and this library reads version 1" in message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a file",
        b"\xff" * 100,
        pickle.dumps({"a": 1}),
        b"\2\0\0\0\0\0\0\0{}",
        b"\4\0\0\0\0\0\0\0null",
        (20_000).to_bytes(8, "little") + b"[" * 20_000,
    ],
)
def test_other_files(path, data):
    refused(path, data)


def test_other_safetensors(path):
    from safetensors.torch import save_file

    save_file({"x": torch.ones(2)}, path)
    assert "not written by lit_gnncompress" in refused(path, path.read_bytes())


def test_another_kind(path):
    with pytest.raises(ContainerError, match="holds 'things', but 'others' was asked for"):
        read_container(path, "others")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_container(tmp_path / "none", "things")


# --- what is not finished is not there ----------------------------------------------------------

SPECS = {"x": Spec(torch.float32, (4, 2))}


def leftovers(folder):
    return [file.name for file in folder.iterdir()]


def test_an_error_leaves_nothing(tmp_path):
    def write():
        with ContainerWriter(tmp_path / "f", SPECS, {}, "things") as writer:
            writer.write("x", torch.ones(2, 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.ones(3, 2), "not written in full: 24 of 32 bytes"),
        (torch.ones(5, 2), "too many"),
        (torch.ones(4, 2).half(), "is torch.float32, not torch.float16"),
    ],
)
def test_wrong_rows(tmp_path, rows, message):
    def write():
        with ContainerWriter(tmp_path / "f", SPECS, {}, "things") as writer:
            writer.write("x", rows)

    with pytest.raises(ValueError, match=message):
        write()
    assert not leftovers(tmp_path)


def test_the_old_file_stays_until_the_new_one_is_complete(path):
    before = path.read_bytes()
    mapped = Container(path, "things").map()
    with ContainerWriter(path, SPECS, {}, "others") as writer:
        assert path.read_bytes() == before
        writer.write("x", torch.ones(4, 2))
    assert_same(mapped)  # of the old one
    assert read_container(path, "others")[0]["x"].sum() == 8


def test_two_writers(tmp_path):
    with ContainerWriter(tmp_path / "f", SPECS, {}, "things") as writer:
        writer.write("x", torch.ones(4, 2))
        with pytest.raises(ContainerError, match="is being written by another process"):
            write_container(tmp_path / "f", {}, {}, "things")
    assert leftovers(tmp_path) == ["f"]


def test_a_killed_writer(tmp_path):
    code = f"""
        import os, signal, torch
        from lit_gnncompress.storage.container import Spec
        from lit_gnncompress.storage.container_writer import ContainerWriter
        specs = {{"x": Spec(torch.uint8, (100_000,))}}
        with ContainerWriter({str(tmp_path / "f")!r}, specs, {{}}, "things") as writer:
            writer.write("x", torch.ones(90_000, dtype=torch.uint8))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = leftovers(tmp_path)
    assert left == ".f.unfinished"
    with pytest.raises(ContainerError):
        read_container(tmp_path / left, "things")
    write_container(tmp_path / "f", TENSORS, META, "things")
    assert leftovers(tmp_path) == ["f"]
    assert_same(read_container(tmp_path / "f", "things")[0])


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_container(tmp_path / "none" / "f", TENSORS, META, "things")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_container(tmp_path, TENSORS, META, "things")
    vast = {"x": Spec(torch.float32, (2**40,))}
    with (
        pytest.raises(OSError, match="there is room for"),
        ContainerWriter(tmp_path / "f", vast, {}, "things"),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("__metadata__", torch.ones(1), "no name for a tensor"),
        ("x", torch.ones(1, dtype=torch.complex64), "convert it"),
    ],
)
def test_tensors_that_the_format_cannot_hold(tmp_path, name, tensor, message):
    with pytest.raises(ValueError, match=message):
        write_container(tmp_path / "f", {name: tensor}, {}, "things")
