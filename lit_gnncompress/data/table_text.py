"""Rows of a text file, in blocks."""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

TEXT_BYTES = 2**24
"""Bytes of text in memory at a time, and the longest line."""

BLOCK_ROWS = 2**16
"""Rows in memory at a time."""

_SHOWN = 60
_LINE_ENDS = b"\n\r"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

OnBadRows = Literal["error", "skip"]


class RowBlock(NamedTuple):
    """Rows as they were parsed, good until the next block.

    Attributes:
        label: uint8, shape ``(R,)``.
        dense: float32, shape ``(R, num_dense)``.
        sparse: Raw categories, uint32, shape ``(R, F)``.
    """

    label: np.ndarray
    dense: np.ndarray
    sparse: np.ndarray


@dataclass(frozen=True)
class RowFormat(ABC):
    """What a line of a file means.

    Attributes:
        num_dense: Numbers in a row.
        num_fields: Categories in a row.
    """

    num_dense: int
    num_fields: int

    @property
    @abstractmethod
    def parse(self) -> Callable[..., Any]:
        """One of the loops of ``table_parsing``."""

    @abstractmethod
    def problem(self, line: str, labelled: bool) -> str:
        """Why a line is no row, to follow its number in a message."""


@dataclass
class BadRows:
    """Lines that were no rows.

    Attributes:
        on_bad_rows: Whether the first one is an error, or they are counted.
        count: How many there were.
        first: The first, in words.
    """

    on_bad_rows: OnBadRows
    count: int = 0
    first: str = ""


@dataclass
class TextFile:
    """A file of rows, plain or compressed with gzip, whatever its name.

    A UTF-8 byte order mark at the beginning and empty lines at the end are left out.

    Args:
        path: The file.
        form: What its lines mean.
        labelled: Whether they begin with a label.

    Attributes:
        size: Bytes on the disk.
    """

    path: Path
    form: RowFormat
    labelled: bool = True
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.path.stat().st_size

    def blocks(self, bad: BadRows, advance: Callable[[int], Any]) -> Iterator[RowBlock]:
        """The rows.

        Args:
            bad: What to do about lines that are no rows; it counts them.
            advance: Called with the bytes of the file that were read since the last call.

        Raises:
            ValueError: If a line is no row and ``bad`` says so, a line is too long, or a
                compressed file is damaged.
        """
        with _opened(self.path) as (file, position):
            try:
                yield from self._parsed(file, position, bad, advance)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(
                    f"{self.path} is damaged or cut off ({error}): get it once more."
                ) from error

    def _parsed(
        self,
        file: BinaryIO,
        position: Callable[[], int],
        bad: BadRows,
        advance: Callable[[int], Any],
    ) -> Iterator[RowBlock]:
        form, skip = self.form, bad.on_bad_rows == "skip"
        text = np.empty(TEXT_BYTES, np.uint8)
        label = np.empty(BLOCK_ROWS, np.uint8)
        dense = np.empty((BLOCK_ROWS, form.num_dense), np.float32)
        sparse = np.empty((BLOCK_ROWS, form.num_fields), np.uint32)
        kept = line = done = 0
        is_last = started = False
        while not is_last:
            got = file.readinto(memoryview(text)[kept:])  # type: ignore[attr-defined,arg-type]
            begin, end, is_last = 0, kept + got, got == 0
            advance(position() - done)
            done = position()
            if not started and end >= len(_BYTE_ORDER_MARK):
                started = True
                if text[: len(_BYTE_ORDER_MARK)].tobytes() == _BYTE_ORDER_MARK:
                    begin = len(_BYTE_ORDER_MARK)
            stop = _last_line(text, begin, end)  # what follows may be the end of the file
            lines = 1
            while begin < stop and lines:
                place = np.full(3, -1, np.int64)
                rows, begin, lines, skipped = form.parse(
                    text, begin, stop, is_last, self.labelled, skip, label, dense, sparse, place
                )
                if skipped and (not skip or not bad.count):
                    shown = text[place[0] : place[1]].tobytes().decode("utf-8", "replace")
                    number = line + int(place[2]) + 1
                    shown = shown.removesuffix("\r")
                    bad.first = f"{self.path}, line {number}: {form.problem(shown, self.labelled)}"
                    if not skip:
                        raise ValueError(
                            f"{bad.first}. The line begins {shown[:_SHOWN]!r}. Mend it, or pass "
                            f"on_bad_rows='skip' to leave such lines out."
                        )
                bad.count += skipped
                line += lines
                if rows:
                    yield RowBlock(label[:rows], dense[:rows], sparse[:rows])
            kept = end - begin
            if kept == len(text) and not is_last:
                raise ValueError(
                    f"{self.path}, line {line + 1}: no end of the line in {TEXT_BYTES:,} bytes: "
                    f"this is no file of rows."
                )
            text[:kept] = text[begin:end].copy()


def _last_line(text: np.ndarray, begin: int, end: int) -> int:
    """Where the last line that is not empty ends; ``begin`` if there is none."""
    stop = end
    while stop > begin and text[stop - 1] in _LINE_ENDS:
        stop -= 1
    if stop == begin:
        return begin
    if text[stop:end][:2].tobytes() == b"\r\n":
        return stop + 2
    return stop + int(stop < end and text[stop] == _LINE_ENDS[0])


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """The text of a file, and how many bytes of the file were read."""
    with open(path, "rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not is_gzip:
            yield raw, raw.tell
            return
        with gzip.GzipFile(fileobj=raw) as file:
            yield file, raw.tell  # type: ignore[misc]


def first_line(path: Path) -> str:
    """The first line of a text file, plain or compressed."""
    with _opened(path) as (file, _):
        return file.readline(TEXT_BYTES).decode("utf-8-sig", "replace")
