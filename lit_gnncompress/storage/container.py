"""One sealed safetensors file: tensors, what they mean, and a checksum over every byte.

Any reader of safetensors can open it. In the metadata of its header lie the name and version of
the format, the kind of contents, their description as JSON, a digest of every chunk of every
tensor, and a digest of the header itself, its length and padding included, in which the digest's
own characters count as zeros. Versions of the format may differ in all but ``format``, ``version``
and ``digest``.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

FORMAT = "lit_gnncompress"
VERSION = 1
CHUNK_BYTES = 2**24
"""Bytes under one digest; each tensor starts a chunk."""

DIGEST_CHARS = 32
_LENGTH_BYTES = 8
_ALIGNMENT = 64  # of the data in the file, so that mapped rows lie as allocated ones do
_MAX_HEADER = 100_000_000  # as for safetensors

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

PathLike = str | os.PathLike[str]


class ContainerError(ValueError):
    """A file that is damaged, cut off, too new, or something else than it should be."""


class Spec(NamedTuple):
    """Dtype and shape of a tensor that will be written."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the tensor's data."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Attributes:
        spec: Its dtype and shape.
        begin: Where its bytes begin, counted from the start of the file.
        digests: One for each chunk of its bytes.
    """

    spec: Spec
    begin: int
    digests: tuple[str, ...]


class Container:
    """An opened file: its header is checked, its data are not read yet.

    Attributes:
        path: The file.
        meta: What was given to the writer.
        digest: Digest of the header, and through it of the whole file.
        entries: The tensors, in the order of the file.
    """

    def __init__(self, path: PathLike, kind: str) -> None:
        """Opens a file and checks its header and size.

        Args:
            path: The file.
            kind: What it must hold: the writer's word for it.

        Raises:
            FileNotFoundError: No such file.
            ContainerError: Not such a file, damaged, cut off, or of a newer format.
        """
        self.path = Path(path)
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            header, data_begin = _read_header(self.path, file, size)
            self._mapping = _map_file(file)
        metadata = header.pop("__metadata__")
        self.digest: str = metadata["digest"]
        if metadata.get("kind") != kind:
            raise ContainerError(
                f"{self.path} holds {metadata.get('kind')!r}, but {kind!r} was asked for: open it "
                f"with the function that reads its kind."
            )
        try:
            self.meta: dict[str, Any] = json.loads(metadata["meta"])
            self._chunk_bytes = int(metadata["chunk_bytes"])
            digests = json.loads(metadata["digests"])
            self.entries = dict(_entries(header, digests, data_begin, self._chunk_bytes))
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise ContainerError(
                f"{self.path} contradicts itself ({error}): write it again."
            ) from error
        expected = data_begin + sum(entry.spec.num_bytes for entry in self.entries.values())
        if size != expected:
            what = "cut off" if size < expected else "followed by bytes that are not its own"
            raise ContainerError(
                f"{self.path} is {what}: it has {size:,} bytes and should have {expected:,}. Copy "
                f"it anew or write it again."
            )

    def verify(self) -> None:
        """Reads all data, a chunk at a time, and compares them with their digests.

        Raises:
            ContainerError: Naming the tensor and the bytes that are damaged.
        """
        buffer = bytearray(self._chunk_bytes)
        with open(self.path, "rb", buffering=0) as file:
            for name in self.entries:
                self._read_chunks(file, name, buffer)

    def read(self, verify: bool = True) -> dict[str, Tensor]:
        """All tensors, read into memory.

        Args:
            verify: Whether to compare them with their digests.

        Raises:
            ContainerError: Naming the tensor and the bytes that are damaged.
        """
        tensors = {}
        with open(self.path, "rb", buffering=0) as file:
            for name, entry in self.entries.items():
                tensor = torch.empty(entry.spec.num_bytes, dtype=torch.uint8)
                self._read_chunks(file, name, tensor.numpy(), in_place=True, verify=verify)
                tensors[name] = tensor.view(entry.spec.dtype).view(entry.spec.shape)
        return tensors

    def map(self) -> dict[str, Tensor]:
        """All tensors, as maps of the file: the system reads the pages that are used.

        What is written to them stays in memory. The data are not compared with their digests; see
        :meth:`verify`.
        """
        data = torch.from_numpy(np.frombuffer(self._mapping, dtype=np.uint8))
        return {
            name: data[entry.begin : entry.begin + entry.spec.num_bytes]
            .view(entry.spec.dtype)
            .view(entry.spec.shape)
            for name, entry in self.entries.items()
        }

    def sample_rows(self) -> None:
        """Tells the system that rows of the maps will be read here and there from now on.

        It lets go of the pages read so far, and no longer reads ahead, which would fetch many
        times what is used. Nothing may have been written to the maps.
        """
        if sys.platform == "linux":
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._mapping.madvise(mmap.MADV_RANDOM)

    def _read_chunks(
        self, file: BinaryIO, name: str, buffer: Any, in_place: bool = False, verify: bool = True
    ) -> None:
        """Reads a tensor into ``buffer``, each chunk at its place or all of them at its start."""
        entry, view = self.entries[name], memoryview(buffer)
        file.seek(entry.begin)
        for k, expected in enumerate(entry.digests):
            begin = k * self._chunk_bytes
            end = min(begin + self._chunk_bytes, entry.spec.num_bytes)
            chunk = view[begin:end] if in_place else view[: end - begin]
            if not read_into(file, chunk) or (verify and digest(chunk) != expected):
                raise ContainerError(
                    f"{self.path} is damaged in bytes {entry.begin + begin:,} to "
                    f"{entry.begin + end:,} (tensor {name!r}): their checksum does not fit. Copy "
                    f"it anew or write it again."
                )


def read_container(path: PathLike, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a file, all bytes checked; see :class:`Container`."""
    container = Container(path, kind)
    return container.read(), container.meta


def digest(*parts: Any) -> str:
    """The checksum of bytes."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:DIGEST_CHARS]


def read_into(file: BinaryIO, view: memoryview) -> bool:
    """Fills ``view`` from an unbuffered ``file``; whether there were enough bytes."""
    while len(view):
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return False
        view = view[count:]
    return True


# --- layout: what reader and writer agree upon --------------------------------------------------


def layout(specs: Mapping[str, Spec]) -> dict[str, int]:
    """Where each tensor begins, from the start of the data, in the order of the file.

    Wide types go first, so that all are aligned; names are in order, so that equal contents make
    equal files.
    """
    begins, place = {}, 0
    for name in sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name)):
        begins[name] = place
        place += specs[name].num_bytes
    return begins


def header_bytes(
    specs: Mapping[str, Spec], meta: str, kind: str, digests: Mapping[str, list[str]]
) -> bytes:
    """Everything before the data, ``meta`` as JSON; as long with one digest as with another."""
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "digest": "0" * DIGEST_CHARS,
        "kind": kind,
        "meta": meta,
        "chunk_bytes": str(CHUNK_BYTES),
        "digests": json.dumps(digests),
    }
    header: dict[str, Any] = {"__metadata__": metadata}
    for name, begin in layout(specs).items():
        dtype, shape = specs[name]
        end = begin + specs[name].num_bytes
        header[name] = {"dtype": _NAMES[dtype], "shape": [*shape], "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-(_LENGTH_BYTES + len(text)) % _ALIGNMENT)
    length = len(text).to_bytes(_LENGTH_BYTES, "little")
    zeros, own = (b'"digest":"' + d for d in (b"0" * DIGEST_CHARS, digest(length, text).encode()))
    return length + text.replace(zeros, own, 1)


def check_specs(specs: Mapping[str, Spec]) -> None:
    """Refuses what the format cannot hold.

    Raises:
        ValueError: A name that is taken, or a dtype that safetensors does not know.
    """
    for name, spec in specs.items():
        if name == "__metadata__":
            raise ValueError(f"{name!r} is no name for a tensor: safetensors uses it itself.")
        if spec.dtype not in _NAMES:
            known = ", ".join(str(dtype) for dtype in _NAMES)
            raise ValueError(f"tensor {name!r} is {spec.dtype}: convert it to one of {known}.")


def _read_header(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The header, compared with its digest, and where the data begin."""
    length = file.read(_LENGTH_BYTES)
    count = int.from_bytes(length, "little")
    if len(length) < _LENGTH_BYTES or count > min(size - _LENGTH_BYTES, _MAX_HEADER):
        raise ContainerError(
            f"{path} ({size:,} bytes) is no safetensors file, or damaged or cut off in its "
            f"header: copy it anew or write it again."
        )
    text = file.read(count)
    try:
        header = json.loads(text)
        metadata = header["__metadata__"]
        version, own = int(metadata["version"]), metadata["digest"].encode("ascii")
        if metadata["format"] != FORMAT:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ContainerError(
            f"{path} was not written by lit_gnncompress, or its header is damaged: copy it anew or "
            f"write it again with save_features or save_compressed."
        ) from error
    blank = re.sub(rb'("digest": ?")' + re.escape(own), rb"\g<1>" + b"0" * len(own), text, count=1)
    intact = digest(length, blank) == own.decode("ascii")
    if version > VERSION:
        raise ContainerError(
            f"{path} has format version {version}, and this library reads version {VERSION}: "
            f"update lit-gnncompress, or write the file again with this one."
            + ("" if intact else " (Its header is also damaged, or was edited.)")
        )
    if not intact:
        raise ContainerError(
            f"{path} is damaged in its header: its checksum does not fit. Copy it anew or write it "
            f"again."
        )
    return header, _LENGTH_BYTES + count


def _map_file(file: BinaryIO) -> mmap.mmap:
    # Private and unreserved: torch warns of a map that cannot be written, and a reserved one counts
    # as memory, which a file may exceed.
    if sys.platform == "win32":
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    unreserved = 0x4000 if sys.platform == "linux" else 0  # mmap.MAP_NORESERVE from Python 3.13 on
    return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | unreserved)


def _entries(
    header: Mapping[str, Any],
    digests: Mapping[str, list[str]],
    data_begin: int,
    chunk_bytes: int,
) -> Iterator[tuple[str, Entry]]:
    """The tensors of a header, in the order of the file.

    Raises:
        ValueError: Tensors that do not follow each other, or lack digests.
    """
    place = data_begin
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        spec = Spec(DTYPES[entry["dtype"]], tuple(entry["shape"]))
        begin, end = entry["data_offsets"]
        chunks = -(-spec.num_bytes // chunk_bytes)
        fits = data_begin + begin == place and end - begin == spec.num_bytes
        if not fits or len(digests[name]) != chunks:
            raise ValueError(f"tensor {name!r} is not where it should be")
        yield name, Entry(spec, place, tuple(digests[name]))
        place += spec.num_bytes
