"""Arrays in files that are made once, and made again when they are damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

_MANIFEST = "manifest.json"
_READ_BYTES = 2**24


class ArrayCache:
    """A folder of ``.npy`` files and a manifest, named by what the arrays are made of.

    The folder appears when everything in it is complete. One process makes it, others wait.

    Args:
        base: Where folders are.
        key: What the arrays are made of, as JSON has it.
    """

    def __init__(self, base: Path, key: dict[str, Any]) -> None:
        self._key = json.loads(json.dumps(key))
        self.folder = base / _digest(self._key)[:16]

    def open(
        self, make: Callable[[Path], dict[str, Any]], check: bool = True
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays, made if they are not there or damaged.

        Args:
            make: Writes ``.npy`` files to a folder, and returns what else is to be known, as JSON
                has it.
            check: Whether to read all arrays and compare them with their checksums, about a second
                for a GB; without, sizes alone tell of damage.

        Returns:
            The arrays by name, mapped read-only, and what ``make`` returned.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.folder}.lock"):
            if self.folder.exists():
                try:
                    return self._read(check)
                except _Damage as damage:
                    warnings.warn(f"{self.folder} is made anew: {damage}", stacklevel=2)
            self._make(make)
            return self._read(check=False)

    def _make(self, make: Callable[[Path], dict[str, Any]]) -> None:
        unfinished = Path(f"{self.folder}.unfinished")
        if unfinished.exists():  # of a process that was killed: the lock is ours
            shutil.rmtree(unfinished)
        unfinished.mkdir()
        try:
            facts = make(unfinished)
            arrays = {
                path.stem: {"bytes": path.stat().st_size, "crc32": _checksum(path)}
                for path in sorted(unfinished.glob("*.npy"))
            }
            manifest: dict[str, Any] = {"key": self._key, "facts": facts, "arrays": arrays}
            manifest["sha256"] = _digest(manifest)
            (unfinished / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            if self.folder.exists():
                shutil.rmtree(self.folder)
            os.replace(unfinished, self.folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _read(self, check: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        try:
            manifest = json.loads((self.folder / _MANIFEST).read_text(encoding="utf-8"))
            digest = manifest.pop("sha256")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise _Damage(f"its {_MANIFEST} cannot be read ({error})") from error
        if digest != _digest(manifest) or manifest["key"] != self._key:
            raise _Damage(f"its {_MANIFEST} was changed")
        for name, known in manifest["arrays"].items():
            path = self._array(name)
            size = path.stat().st_size if path.is_file() else None
            if size is None:
                raise _Damage(f"{path.name} is missing")
            if size != known["bytes"]:
                raise _Damage(f"{path.name} has {size:,} bytes and not {known['bytes']:,}")
            if check and _checksum(path) != known["crc32"]:
                raise _Damage(f"{path.name} does not match its checksum")
        try:
            arrays = {
                name: np.load(self._array(name), mmap_mode="r") for name in manifest["arrays"]
            }
        except ValueError as error:  # without the check
            raise _Damage(f"an array cannot be read ({error})") from error
        return arrays, manifest["facts"]

    def _array(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


class NpyWriter:
    """A ``.npy`` file of rows whose number is known in the end.

    Args:
        path: The file.
        dtype: Of the rows.
        shape: Of a row.
    """

    def __init__(self, path: Path, dtype: type[np.generic], shape: tuple[int, ...] = ()) -> None:
        self._path, self._dtype, self._shape = path, np.dtype(dtype), shape
        self._file = open(path, "w+b")  # noqa: SIM115
        self.num_rows = 0
        self._write_header()
        self._begin = self._file.tell()

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return self._bytes(self.num_rows)

    def append(self, rows: np.ndarray) -> None:
        """Writes rows behind the others."""
        self._file.seek(self._begin + self._bytes(self.num_rows))
        np.ascontiguousarray(rows, self._dtype).tofile(self._file)
        self.num_rows += len(rows)

    def read(self, first: int, last: int) -> np.ndarray:
        """The rows from ``first`` to ``last - 1``, in memory of their own."""
        self._file.seek(self._begin + self._bytes(first))
        count = self._bytes(last - first) // self._dtype.itemsize
        return np.fromfile(self._file, self._dtype, count).reshape(last - first, *self._shape)

    def overwrite(self, first: int, rows: np.ndarray) -> None:
        """Writes rows over those from ``first`` on."""
        self._file.seek(self._begin + self._bytes(first))
        np.ascontiguousarray(rows, self._dtype).tofile(self._file)

    def close(self) -> None:
        """Writes how many rows there are."""
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._begin  # numpy leaves room for any number of rows
        self._file.close()

    def _bytes(self, rows: int) -> int:
        return rows * int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.num_rows, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


class _Damage(Exception):
    pass


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _checksum(path: Path) -> int:
    checksum = 0
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            checksum = zlib.crc32(block, checksum)
    return checksum
