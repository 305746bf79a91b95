"""Writes a sealed safetensors file, in pieces of any size, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from lit_gnncompress.storage.container import (
    CHUNK_BYTES,
    DIGEST_CHARS,
    ContainerError,
    PathLike,
    Spec,
    check_specs,
    header_bytes,
    layout,
)

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be replaced anyway
    fcntl = None  # type: ignore[assignment]


def write_container(
    path: PathLike, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], kind: str
) -> int:
    """Writes tensors as one sealed file, see :class:`ContainerWriter`.

    Args:
        path: The file; one that is there is replaced.
        tensors: What to write, on any device.
        meta: Description, of what JSON can hold.
        kind: Word for what the file holds, which its reader must know.

    Returns:
        Bytes of the file.
    """
    specs = {name: Spec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with ContainerWriter(path, specs, meta, kind) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    return writer.num_bytes


class ContainerWriter:
    """Writes a sealed file whose tensors need not be in memory at once.

    Data go to a hidden file beside the target, ``.NAME.unfinished``, which has no header. When all
    are there the header is written, and the file is moved to its name. A writer that is killed
    leaves the hidden file, which nothing takes for a whole one and the next writer overwrites.

    Args:
        path: The file; one that is there is replaced at the end.
        specs: Dtype and shape of every tensor.
        meta: Description, of what JSON can hold.
        kind: Word for what the file holds, which its reader must know.

    Raises:
        ContainerError: Another process is writing the same file.
        OSError: Not enough room, or no permission.
        ValueError: A tensor that the format cannot hold, or that was not written in full.

    Example:
        >>> with ContainerWriter(path, {"x": Spec(torch.float32, (4, 2))}, {}, "rows") as writer:
        ...     for _ in range(2):
        ...         writer.write("x", torch.zeros(2, 2))
    """

    def __init__(
        self, path: PathLike, specs: Mapping[str, Spec], meta: Mapping[str, Any], kind: str
    ) -> None:
        self.path = Path(path)
        self.unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        check_specs(specs)
        self._specs, self._meta, self._kind = dict(specs), json.dumps(meta), kind
        blank = {name: _Part(0, spec).placeholders() for name, spec in specs.items()}
        data_begin = len(header_bytes(specs, self._meta, kind, blank))
        self._parts = {
            name: _Part(data_begin + begin, specs[name]) for name, begin in layout(specs).items()
        }
        self.num_bytes = data_begin + sum(spec.num_bytes for spec in specs.values())
        self._file: BinaryIO | None = None

    def __enter__(self) -> ContainerWriter:
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path} is a folder: give the name of a file.")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {self.path.parent} to write to.")
        free = shutil.disk_usage(self.path.parent).free
        if self.num_bytes > free:
            raise OSError(
                f"{self.path} will take {self.num_bytes:,} bytes, and there is room for {free:,}: "
                f"free some, or write elsewhere."
            )
        self._file = _open_alone(self.unfinished)
        self._file.truncate(0)
        self._file.truncate(self.num_bytes)
        return self

    def write(self, name: str, rows: Tensor) -> None:
        """Appends to the tensor ``name``.

        Args:
            name: One of the specs.
            rows: Any number of its rows, or of its elements in their order.

        Raises:
            ValueError: Another dtype, or more than the spec says.
        """
        part = self._parts[name]
        if rows.dtype != part.spec.dtype:
            raise ValueError(f"tensor {name!r} is {part.spec.dtype}, not {rows.dtype}.")
        flat = rows.detach().cpu().contiguous().reshape(-1)
        flat = flat.as_strided(flat.shape, (1,))  # a single element may keep another stride
        data = memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]
        if part.done + len(data) > part.spec.num_bytes:
            raise ValueError(
                f"tensor {name!r} has {part.spec.num_bytes:,} bytes, and {part.done:,} are "
                f"written: {len(data):,} more are too many."
            )
        assert self._file is not None, "the writer is used outside its with block"
        self._file.seek(part.begin + part.done)
        _write_all(self._file, data)
        part.append(data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        try:
            if error is None:
                self._finish(self._file)
        except BaseException:
            self._discard()
            raise
        if error is not None:
            self._discard()
        self._file.close()

    def _finish(self, file: BinaryIO) -> None:
        for name, part in self._parts.items():
            if part.done != part.spec.num_bytes:
                raise ValueError(
                    f"tensor {name!r} was not written in full: {part.done:,} of "
                    f"{part.spec.num_bytes:,} bytes."
                )
        digests = {name: self._parts[name].finish() for name in self._specs}
        # The data first: no header may vouch for what a power cut took.
        os.fsync(file.fileno())
        file.seek(0)
        _write_all(file, memoryview(header_bytes(self._specs, self._meta, self._kind, digests)))
        os.fsync(file.fileno())
        if fcntl is None:
            file.close()
        os.replace(self.unfinished, self.path)
        _sync_folder(self.path.parent)

    def _discard(self) -> None:
        assert self._file is not None
        if fcntl is None:
            self._file.close()
        self.unfinished.unlink(missing_ok=True)
        self._file.close()


@dataclass
class _Part:
    """A tensor that is being written."""

    begin: int
    spec: Spec
    done: int = 0
    digests: list[str] = field(default_factory=list)
    running: Any = field(default_factory=hashlib.sha256)

    def placeholders(self) -> list[str]:
        """As many digests as there will be."""
        return ["0" * DIGEST_CHARS] * -(-self.spec.num_bytes // CHUNK_BYTES)

    def append(self, data: memoryview) -> None:
        """Counts and digests ``data``."""
        while len(data):
            piece = data[: CHUNK_BYTES - self.done % CHUNK_BYTES]
            self.running.update(piece)
            self.done += len(piece)
            data = data[len(piece) :]
            if self.done % CHUNK_BYTES == 0:
                self._close_chunk()

    def finish(self) -> list[str]:
        """The digests of all chunks."""
        if self.done % CHUNK_BYTES:
            self._close_chunk()
        return self.digests

    def _close_chunk(self) -> None:
        self.digests.append(self.running.hexdigest()[:DIGEST_CHARS])
        self.running = hashlib.sha256()


def _open_alone(path: Path) -> BinaryIO:
    """Opens a file for writing that no other process is writing."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise ContainerError(
                f"{path} is being written by another process: wait for it, or choose another name."
            ) from error
        try:  # that process may have moved it to its name since it was opened here
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        file.close()


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while len(data):
        data = data[file.write(data) :]


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
