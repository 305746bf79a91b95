"""Text files of rows made into arrays, in bounded memory."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lit_gnncompress.byte_progress import byte_progress
from lit_gnncompress.data.array_cache import ArrayCache, NpyWriter
from lit_gnncompress.data.category_counts import SLOTS, CategoryCounts
from lit_gnncompress.data.category_rows import CategoryRows, CategoryRule
from lit_gnncompress.data.folders import Folders
from lit_gnncompress.data.table_rows import TableRows
from lit_gnncompress.data.table_sources import Sources
from lit_gnncompress.data.table_text import (
    BLOCK_ROWS,
    BadRows,
    OnBadRows,
    RowBlock,
    RowFormat,
    TextFile,
)

_VERSION = 1  # of what is written: another one makes the arrays anew


@dataclass(frozen=True)
class TableFiles:
    """Files of rows, and how their categories become rows of tables.

    Attributes:
        sources: The files.
        form: What their lines mean.
        rule: Which categories have a row of their own. All labelled rows are counted.
        on_bad_rows: ``"error"``, or ``"skip"`` to count and leave out lines that are no rows.
    """

    sources: Sources
    form: RowFormat
    rule: CategoryRule
    on_bad_rows: OnBadRows = "error"

    def rows(
        self,
        processed_dir: str | os.PathLike[str] | None = None,
        check: bool = True,
        progress: bool = True,
    ) -> TableRows:
        """The rows, from the cache or made for it.

        They are parsed once and written to files as they are, categories counted on the way; then
        categories there become rows of tables. A process that is killed leaves nothing that is
        used: the next one begins anew.

        Args:
            processed_dir: Folder of processed files, in which the cache is ``tables``; ``None``
                takes ``~/.cache/lit_gnncompress/processed``.
            check: Whether to compare arrays of the cache with their checksums.
            progress: Whether to show progress bars.

        Raises:
            ValueError: If a line is no row and ``on_bad_rows="error"``, a file is damaged, or
                there is no row.
        """
        base = Folders.resolve(processed_dir=processed_dir).processed.parent
        cache = ArrayCache(base / "tables", self._key())
        arrays, facts = cache.open(lambda folder: self._make(folder, progress), check)
        return TableRows(
            arrays["dense"],
            arrays["sparse"],
            arrays["label"],
            tuple(facts["num_embeddings"]),
            facts["num_train"],
            facts["num_test"],
            facts["skipped"],
        )

    def _key(self) -> dict[str, Any]:
        files = {}
        for part, paths in self.sources._asdict().items():
            stats = [(str(path), path.stat()) for path in paths]
            files[part] = [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats]
        form = [type(self.form).__name__, asdict(self.form)]
        arguments = {"form": form, "rule": asdict(self.rule), "on_bad_rows": self.on_bad_rows}
        return {"version": _VERSION, "files": files, **arguments}

    def _make(self, folder: Path, progress: bool, slots: int = SLOTS) -> dict[str, Any]:
        form = self.form
        work = folder / "work"
        work.mkdir()
        counts = CategoryCounts(self.rule.counted, work, slots)
        bad = BadRows(self.on_bad_rows)
        with ExitStack() as stack:
            label, dense, sparse = (
                stack.enter_context(closing(NpyWriter(folder / f"{name}.npy", dtype, shape)))
                for name, dtype, shape in (
                    ("label", np.uint8, ()),
                    ("dense", np.float32, (form.num_dense,)),
                    ("sparse", np.int32, (form.num_fields,)),
                )
            )
            bar = stack.enter_context(byte_progress(progress))
            num_rows: list[int] = []
            for part, paths in self.sources._asdict().items():
                labelled = part != "unlabelled"
                for block in self._blocks(paths, labelled, bad, bar):
                    if labelled:
                        counts.add(block.sparse)
                    label.append(block.label)
                    dense.append(block.dense)
                    sparse.append(block.sparse.view(np.int32))
                num_rows.append(label.num_rows - sum(num_rows))
            if not num_rows[0]:
                skipped = f", {bad.count:,} were left out: {bad.first}" if bad.count else ""
                raise ValueError(f"no row in {', '.join(map(str, self.sources.train))}{skipped}")
            rows = CategoryRows(self.rule, counts, work)
            _replace(rows, sparse, slots, bar)
        shutil.rmtree(work)
        if bad.count:
            warnings.warn(
                f"{bad.count:,} of {bad.count + sum(num_rows):,} lines are no rows and were left "
                f"out. The first: {bad.first}",
                stacklevel=2,
            )
        return {
            "num_embeddings": rows.num_embeddings,
            "num_train": num_rows[0],
            "num_test": num_rows[1],
            "skipped": bad.count,
        }

    def _blocks(
        self, paths: Sequence[Path], labelled: bool, bad: BadRows, bar: Any
    ) -> Iterator[RowBlock]:
        for path in paths:
            file = TextFile(path, self.form, labelled)
            task = bar.add_task(f"reading {path.name}", total=file.size)
            yield from file.blocks(bad, partial(bar.advance, task))


def _replace(rows: CategoryRows, sparse: NpyWriter, slots: int, bar: Any) -> None:
    """Replaces categories in a file by rows of tables."""
    total = sparse.num_bytes * rows.num_passes(slots)
    task = bar.add_task("numbering categories", total=total)
    begin = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal begin
        for begin in range(0, sparse.num_rows, BLOCK_ROWS):
            last = min(begin + BLOCK_ROWS, sparse.num_rows)
            yield sparse.read(begin, last).view(np.uint32)

    def write(block: np.ndarray) -> None:
        sparse.overwrite(begin, block.view(np.int32))
        bar.advance(task, block.nbytes)

    rows.replace(blocks, write, slots)
