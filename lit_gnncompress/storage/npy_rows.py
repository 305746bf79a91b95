"""Rows of a matrix on disk, read block by block into the same memory."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from lit_gnncompress.storage.container import PathLike, read_into

BLOCK_BYTES = 2**25
"""Bytes of rows in memory at a time; twice that are used, to read ahead."""

_FLOATS = (np.float16, np.float32, np.float64)


class NpyRows:
    """A floating-point matrix in a ``.npy`` file or under a ``np.memmap``, in either order.

    It is read with plain reads: what a map has touched counts as the process's memory.

    Args:
        source: Path of a ``.npy`` file, or a ``np.memmap`` of a whole file or part of it.

    Attributes:
        path: The file.
        shape: Rows and columns.
        dtype: float16, float32 or float64, of either byte order.

    Raises:
        FileNotFoundError: No such file.
        TypeError: Something else, or a matrix of no floating-point type.
        ValueError: Not a ``.npy`` file, cut off, not a matrix, or pickled objects.
    """

    def __init__(self, source: PathLike | np.memmap) -> None:
        if isinstance(source, np.memmap):
            self._take_map(source)
        elif isinstance(source, (str, os.PathLike)):
            self._take_file(Path(source))
        else:
            raise TypeError(
                f"features are a {type(source).__name__}: give the path of a .npy file or a "
                f"np.memmap. What is in memory is packed with pack(x) and save_features(path, x)."
            )
        if self.dtype.type not in _FLOATS:
            raise TypeError(
                f"{self.path} holds {self.dtype}: features are float16, float32 or float64. "
                f"Convert them with astype."
            )
        if len(self.shape) != 2:
            raise ValueError(
                f"{self.path} has shape {self.shape}: features are a matrix, one row for each node."
            )
        size, expected = os.stat(self.path).st_size, self._begin + self.num_bytes
        if size < expected:
            raise ValueError(
                f"{self.path} is cut off: it has {size:,} bytes, and {self.shape[0]:,} × "
                f"{self.shape[1]:,} {self.dtype} end at {expected:,}."
            )

    @property
    def num_bytes(self) -> int:
        """Size of the matrix."""
        return self.shape[0] * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return self.shape[1] * self.dtype.itemsize

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """First row and contents of block after block, which are good until the next one.

        While one block is worked on, the next is read.
        """
        step = max(1, BLOCK_BYTES // max(1, self.row_bytes))
        buffers = [np.empty(min(step, self.shape[0]) * self.row_bytes, np.uint8) for _ in "ab"]
        with open(self.path, "rb", buffering=0) as file, ThreadPoolExecutor(1) as reader:
            ahead: deque[tuple[int, Future[np.ndarray]]] = deque()
            for k, begin in enumerate(range(0, self.shape[0], step)):
                # Into the buffer of the block before the last, which its user is done with.
                ahead.append((begin, reader.submit(self._read, file, begin, step, buffers[k % 2])))
                if len(ahead) == 2:
                    first, block = ahead.popleft()
                    yield first, torch.from_numpy(block.result())
            for first, block in ahead:
                yield first, torch.from_numpy(block.result())

    def _read(self, file: BinaryIO, begin: int, step: int, buffer: np.ndarray) -> np.ndarray:
        """Rows ``begin`` to ``begin + step``, or to the last one."""
        rows, width = self.shape
        count = min(step, rows - begin)
        item = self.dtype.itemsize
        view = memoryview(buffer)[: count * width * item]  # type: ignore[arg-type]
        whole = True
        if self._by_column:
            for column in range(width):
                file.seek(self._begin + (column * rows + begin) * item)
                whole &= read_into(file, view[column * count * item : (column + 1) * count * item])
        else:
            file.seek(self._begin + begin * width * item)
            whole = read_into(file, view)
        if not whole:
            raise OSError(f"{self.path} became shorter while it was read.")
        block = np.frombuffer(view, self.dtype)
        if not self.dtype.isnative:
            block = block.byteswap(inplace=True).view(self.dtype.newbyteorder("="))
        return block.reshape(width, count).T if self._by_column else block.reshape(count, width)

    def _take_file(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                if version not in _READERS:
                    raise ValueError(f"version {version} of the format is not known")
                self.shape, self._by_column, self.dtype = _READERS[version](file)
            except ValueError as error:
                raise ValueError(
                    f"{path} is no .npy file of numbers ({error}): write it with numpy.save."
                ) from error
            self._begin = file.tell()

    def _take_map(self, source: np.memmap) -> None:
        flags, base = source.flags, source._mmap  # type: ignore[attr-defined]
        if source.filename is None or not (flags.c_contiguous or flags.f_contiguous):
            raise ValueError(
                "the np.memmap is a view with gaps, or has no file of its own: give the map of all "
                "rows and columns."
            )
        if source.mode == "c":
            raise ValueError(
                "the np.memmap has mode 'c', so that changes are in memory alone: open it with "
                "mode 'r'."
            )
        if source.mode != "r":
            source.flush()
        self.path, self.dtype, self.shape = Path(source.filename), source.dtype, source.shape
        self._by_column = not flags.c_contiguous
        # A slice still has the offset of the map that it was cut from.
        start = np.frombuffer(base, np.uint8).__array_interface__["data"][0]
        skipped = source.__array_interface__["data"][0] - start
        self._begin = source.offset - source.offset % mmap.ALLOCATIONGRANULARITY + skipped


_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
