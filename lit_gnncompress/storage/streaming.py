"""Packs features that are larger than memory: from file to file, block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lit_gnncompress.byte_progress import byte_progress
from lit_gnncompress.kernels import quantize_pack
from lit_gnncompress.kernels.layout import check_bits, row_bytes
from lit_gnncompress.quantization.finite import check_finite
from lit_gnncompress.quantization.quantizer import Quantizer
from lit_gnncompress.quantization.ranges import step, wide
from lit_gnncompress.storage.codecs import DenseCodec
from lit_gnncompress.storage.container import PathLike, Spec
from lit_gnncompress.storage.container_writer import ContainerWriter
from lit_gnncompress.storage.feature_file import KIND
from lit_gnncompress.storage.npy_rows import NpyRows

FileRange = Literal["minmax", "mse"]
FileGranularity = Literal["row", "tensor", "column"]


@dataclass(frozen=True)
class PackedFile:
    """What became of a file.

    Attributes:
        source: The floats.
        target: The packed features.
        rows: Nodes.
        width: Features of a node.
        bits: Bits of a code.
        bytes_before: Size of the floats.
        bytes_after: Size of the packed file, checksums and all.
        seconds: How long it took.
    """

    source: Path
    target: Path
    rows: int
    width: int
    bits: int
    bytes_before: int
    bytes_after: int
    seconds: float


def pack_file(
    source: PathLike | np.memmap,
    target: PathLike,
    bits: int = 8,
    *,
    granularity: FileGranularity = "row",
    range: FileRange = "minmax",
    overwrite: bool = False,
    progress: bool = True,
) -> PackedFile:
    """Packs a feature file of any size, a block of rows at a time.

    The codes are those of ``pack(x, bits, granularity=..., range=...)``, stored densely; open them
    with :func:`~lit_gnncompress.storage.feature_file.open_features`. The file appears under its
    name when it is complete: a run that is broken off leaves none, and the next starts over.

    Args:
        source: A ``.npy`` file, or a ``np.memmap``: float16, float32 or float64, shape ``(N, F)``.
            Files in Fortran order are read with a seek for each column of each block.
        target: The file to write, by custom ``*.safetensors``.
        bits: Bits of a code.
        granularity: Which values share a range. ``"row"`` keeps the most quality, as no outlier
            costs the codes of any other node, takes 8 bytes a row, and reads the source once.
            ``"tensor"`` and ``"column"`` read it twice, first for the range.
        range: ``"minmax"``, or with ``granularity="row"`` also ``"mse"``, which tries 19 fractions
            of each row's range, and takes as much longer.
        overwrite: Whether to replace a target that is there.
        progress: Whether to show a progress bar.

    Returns:
        What was written.

    Raises:
        FileExistsError: A target that is there already.
        OSError: A source that cannot be read, a target that cannot be written, or a full disk.
        TypeError: A source that holds no floats, or bits that are no integer.
        ValueError: Bits outside 1 to 8, an unknown choice, a source that is cut off or no matrix,
            or features that are not finite, with row and column.

    Example:
        >>> pack_file("features.npy", "features.safetensors", bits=4)
    """
    if isinstance(bits, bool) or not hasattr(bits, "__index__"):
        raise TypeError(f"bits={bits!r}: codes in a file have one number of bits, from 1 to 8.")
    check_bits(bits)
    if granularity not in ("row", "tensor", "column") or range not in ("minmax", "mse"):
        raise ValueError(
            f"granularity={granularity!r}, range={range!r}: of a file, granularity is 'row', "
            f"'tensor' or 'column', and range is 'minmax' or 'mse'."
        )
    if range == "mse" and granularity != "row":
        raise ValueError(f"range='mse' with granularity={granularity!r}: it is for rows alone.")
    target, features = Path(target), NpyRows(source)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists already: choose another name, or overwrite it.")
    if target.exists() and target.samefile(features.path):
        raise ValueError(f"{target} is the source: choose another name.")
    begin = time.perf_counter()
    passes = 1 if granularity == "row" else 2
    with _one_thread(), _progress(features, passes, progress) as advance:
        if granularity == "row":
            written = _pack_rows(features, target, bits, range, advance)
        else:
            by_column = granularity == "column"
            ends = _shared_range(features, by_column, advance)
            written = _pack_shared(features, target, bits, *ends, by_column, advance)
    rows, width = features.shape
    seconds = time.perf_counter() - begin
    return PackedFile(
        features.path, target, rows, width, bits, features.num_bytes, written, seconds
    )


Advance = Callable[[Tensor], None]


def _pack_rows(
    features: NpyRows, target: Path, bits: int, range: FileRange, advance: Advance
) -> int:
    """One pass: every row has a range of its own."""
    quantizer = Quantizer(range, "row")
    with _writer(features, target, bits, features.shape[0], by_column=False) as writer:
        for first, x in features.blocks():
            if x.numel():
                lo, hi = wide(x.amin(1)), wide(x.amax(1))
                _check_ends(features, x, first, lo, hi)
                if range == "mse":
                    lo, hi = (ends.squeeze(1) for ends in quantizer.find_range(x, bits)[:2])
                lo, scale = lo.float(), step(lo, hi, 2.0**bits - 1).float()
            else:
                lo, scale = (
                    torch.zeros(len(x), dtype=torch.float32),
                    torch.ones(len(x), dtype=torch.float32),
                )
            writer.write(_CODES, quantize_pack(x, lo, scale, bits))
            writer.write(_LO, lo)
            writer.write(_SCALE, scale)
            advance(x)
    return writer.num_bytes


def _shared_range(features: NpyRows, by_column: bool, advance: Advance) -> tuple[Tensor, Tensor]:
    """The first pass: minimum and maximum, shape ``(1,)`` or ``(F,)``."""
    lo = hi = None
    for first, x in features.blocks():
        if x.numel():
            ends = (x.amin(0), x.amax(0)) if by_column else (x.amin().view(1), x.amax().view(1))
            _check_ends(features, x, first, *ends)
            lo = ends[0] if lo is None else torch.minimum(lo, ends[0])
            hi = ends[1] if hi is None else torch.maximum(hi, ends[1])
        advance(x)
    if lo is None or hi is None:
        return torch.zeros(1, dtype=torch.float32), torch.ones(1, dtype=torch.float32)
    return wide(lo), wide(hi)


def _pack_shared(
    features: NpyRows,
    target: Path,
    bits: int,
    lo: Tensor,
    hi: Tensor,
    by_column: bool,
    advance: Advance,
) -> int:
    """The second pass, with a known range."""
    scale = step(lo, hi, 2.0**bits - 1).float()
    lo = lo.float()
    zero, one = torch.zeros(1, dtype=torch.float32), torch.ones(1, dtype=torch.float32)
    with _writer(features, target, bits, len(lo), by_column) as writer:
        for _, x in features.blocks():
            if by_column:
                codes = quantize_pack(wide(x).sub(lo).div_(scale), zero, one, bits)
            else:
                codes = quantize_pack(x, lo, scale, bits)
            writer.write(_CODES, codes)
            advance(x)
        writer.write(_LO, lo)
        writer.write(_SCALE, scale)
    return writer.num_bytes


_CODES, _LO, _SCALE = (f"blocks.0.{part}" for part in ("codes", "lo", "scale"))


def _writer(
    features: NpyRows, target: Path, bits: int, ranges: int, by_column: bool
) -> ContainerWriter:
    """A writer for what ``save_features`` would write of a dense codec."""
    rows, width = features.shape
    specs = {
        _CODES: Spec(torch.uint8, (rows, row_bytes(width, bits))),
        _LO: Spec(torch.float32, (ranges,)),
        _SCALE: Spec(torch.float32, (ranges,)),
    }
    meta = {"codec": DenseCodec.name, "rows": rows, "width": width, "bits": bits}
    return ContainerWriter(target, specs, {"blocks": [meta | {"by_column": by_column}]}, KIND)


def _check_ends(features: NpyRows, x: Tensor, first: int, lo: Tensor, hi: Tensor) -> None:
    """Refuses NaN and infinity, which minimum or maximum always show."""
    spread = hi.float() - lo.float()
    if bool(torch.isfinite(spread).all()):
        return
    check_finite(x, "packed", first, f", and save {features.path} again")
    raise ValueError(
        f"{features.path}: features in the rows from {first:,} on span more than float32 can "
        f"hold, up to {float(hi.max()):.3g}: scale them."
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Does without torch's threads: one works at 6 GB/s, while they wait for the disk spinning."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _progress(features: NpyRows, passes: int, show: bool) -> Iterator[Advance]:
    """A bar over the bytes of all passes, and what moves it on."""
    with byte_progress(show) as bar:
        task = bar.add_task(f"packing {features.path.name}", total=passes * features.num_bytes)
        yield lambda x: bar.advance(task, x.numel() * x.element_size())
