"""Generated files in the format of Criteo's, with the cardinalities of its Kaggle data."""

from __future__ import annotations

from binascii import hexlify
from pathlib import Path

import numpy as np

KAGGLE_ROWS = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992,
    5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip
"""Distinct categories of each field in Kaggle's training file, as DLRM counts them."""

_LINES = 50_000
_MISSING = 0.1


def write_criteo(
    path: Path, num_rows: int, cardinalities: tuple[int, ...] = KAGGLE_ROWS, seed: int = 0
) -> None:
    """Writes rows: labels, 13 integers and 26 categories, a tenth of them missing.

    Few categories are frequent: the n-th most frequent one about as often as 1 / n.

    Args:
        path: File to write.
        num_rows: How many rows.
        cardinalities: How many categories there may be, of each of 26 fields.
        seed: Seed of the draw.
    """
    draw = np.random.default_rng(seed)
    sizes = np.array(cardinalities, np.float64)
    number = np.arange(1, 1 + len(sizes), dtype=np.uint64)
    with open(path, "wb") as file:
        for first in range(0, num_rows, _LINES):
            count = min(_LINES, num_rows - first)
            label = (draw.random(count) < 0.25).astype(int)
            integers = np.floor(draw.exponential(40, (count, 13)) ** 1.5).astype(np.int64)
            ranks = np.exp(draw.random((count, len(sizes))) * np.log(sizes + 1)).astype(np.uint64)
            # Odd factors lose nothing modulo 2**32, so that categories stay different.
            categories = (ranks * np.uint64(2654435761) + number) % np.uint64(2**32)
            missing = draw.random((count, 39)) < _MISSING
            file.write(_text(label, integers, categories, missing))


def _text(
    label: np.ndarray, integers: np.ndarray, categories: np.ndarray, missing: np.ndarray
) -> bytes:
    decimal = np.array([b"%d" % value for value in range(-2, 1 + int(integers.max()))])
    hexadecimal = hexlify(categories.astype(">u4").tobytes())
    fields = decimal[integers], np.frombuffer(hexadecimal, "S8").reshape(categories.shape)
    table = np.concatenate(fields, axis=1)
    table[missing] = b""
    lines = zip(label.tolist(), table.tolist(), strict=True)
    return b"".join(b"%d\t%s\n" % (each, b"\t".join(words)) for each, words in lines)
