"""What data modules of rows have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import lightning as L
import numpy as np

from lit_gnncompress.data.category_rows import CategoryRule
from lit_gnncompress.data.table_files import TableFiles
from lit_gnncompress.data.table_rows import BlockOrder, TableLoader, TableRows
from lit_gnncompress.data.table_sources import (
    GENERATED,
    KnownSources,
    Paths,
    Sources,
    given,
)
from lit_gnncompress.data.table_split import RowSplit, fold_rows, last_rows
from lit_gnncompress.data.table_text import OnBadRows, RowFormat


class TableDataModule(L.LightningDataModule, ABC):
    """Serves rows of numbers and categories as :class:`TableBatch`.

    Files become arrays in files once, in bounded memory, with a progress bar. The arrays are used
    again while files (path, size and time of change) and arguments are the same, and made again if
    they are damaged.

    A category that occurs ``min_frequency`` times has a row of its own in its field's table, the
    most frequent first; all others, also those first seen in a file to predict, share the
    ``hash_buckets`` rows before, by their remainder. ``max_categories=0`` hashes all of them.

    Args:
        name: Name of a data set. ``clicks`` is generated: arguments about files and categories do
            not concern it.
        root: Folder that has a folder of that name; ``None`` takes the environment variable
            ``GNNCOMPRESS_DATA``, and without it ``~/.cache/lit_gnncompress``. Nothing is
            downloaded.
        path: Instead of a ``name``: a file of your own, or several in the order of time.
        test_path: Files to test with, for ``path``.
        predict_path: Files without labels to predict, for ``path``.
        processed_dir: Folder of the arrays; ``None`` takes ``~/.cache/lit_gnncompress/processed``.
        min_frequency: How often a category must occur, in all labelled rows, to have a row of its
            own.
        max_categories: How many categories have one at most, of all fields or of each. Ten million
            bounds Terabyte's tables as DLRM's benchmarks do.
        hash_buckets: Rows that the others share, likewise.
        on_bad_rows: ``"error"`` for an error with file and line, ``"skip"`` to leave out lines that
            are no rows, and say how many.
        check_cache: Whether arrays are compared with their checksums when they are used again,
            about a second for a GB; their sizes always are.
        batch_size: Rows in a training batch.
        eval_batch_size: Rows in any other batch.
        val_share: Share of the rows to validate with: those before the ones that test. 0 validates
            nothing.
        test_share: Share of the rows to test with, the last ones. ``None`` takes the published
            part, or 0.1 where there is none.
        folds: Splits all labelled rows for a cross-validation with so many folds instead: one
            tests, the next one validates.
        fold: Which one tests, from 0.
        split_seed: Seed that draws the folds.

    Raises:
        ValueError: If ``name`` or ``on_bad_rows`` is unknown, or a number is out of range; with the
            data, if a line is no row or a file is damaged.
        FileNotFoundError: With the data, if files are missing.
    """

    known: ClassVar[KnownSources]
    num_fields: ClassVar[int | None] = None  # where it is always the same

    def __init__(
        self,
        name: str = GENERATED,
        root: str | os.PathLike[str] | None = None,
        path: Paths = None,
        test_path: Paths = None,
        predict_path: Paths = None,
        processed_dir: str | os.PathLike[str] | None = None,
        min_frequency: int = 1,
        max_categories: int | Sequence[int] = 10_000_000,
        hash_buckets: int | Sequence[int] = 1,
        on_bad_rows: OnBadRows = "error",
        check_cache: bool = True,
        batch_size: int = 2048,
        eval_batch_size: int = 16384,
        val_share: float = 0.1,
        test_share: float | None = None,
        folds: int | None = None,
        fold: int = 0,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        # The folders belong to a machine, not to what was trained: they stay out of checkpoints.
        self.save_hyperparameters(
            ignore=["root", "path", "test_path", "predict_path", "processed_dir", "check_cache"]
        )
        for argument, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise ValueError(f"{argument}={size} must be at least 1")
        if folds is None and fold != 0:
            raise ValueError(f"fold={fold} needs folds, how many there are")
        if on_bad_rows not in ("error", "skip"):
            raise ValueError(f"on_bad_rows={on_bad_rows!r} is unknown: choose 'error' or 'skip'")
        if path is None and (test_path is not None or predict_path is not None):
            raise ValueError("test_path and predict_path go with path: pass that, too")
        self.data_name = self.known.canonical(name) if path is None else "path"
        self.root, self.processed_dir = root, processed_dir
        self._paths = (path, test_path, predict_path)
        self._rule = (min_frequency, max_categories, hash_buckets)
        if self.num_fields is not None:
            CategoryRule.of(self.num_fields, *self._rule)
        self.on_bad_rows, self.check_cache = on_bad_rows, check_cache
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_share, self.test_share = val_share, test_share
        self.folds, self.fold, self.split_seed = folds, fold, split_seed
        self._rows: TableRows | None = None

    @abstractmethod
    def _form(self, sources: Sources) -> RowFormat:
        """What lines of the files mean."""

    @abstractmethod
    def _generated(self) -> TableRows:
        """Rows that need no file."""

    def __repr__(self) -> str:
        known = "not loaded"
        if self._rows is not None:
            known = f"{len(self._rows):,} rows, {sum(self.num_embeddings):,} categories"
        return f"{type(self).__name__}({self.data_name!r}, {known})"

    # Lightning's own text opens the loaders.
    __str__ = __repr__

    @property
    def rows(self) -> TableRows:
        """All rows."""
        if self._rows is None:
            self._rows = self._generated() if self.data_name == GENERATED else self._read()
        return self._rows

    @property
    def num_dense(self) -> int:
        """Numbers in a row."""
        return self.rows.dense.shape[1]

    @property
    def num_embeddings(self) -> list[int]:
        """Rows that the table of each field needs."""
        return list(self.rows.num_embeddings)

    @property
    def skipped_rows(self) -> int:
        """Lines of the files that are no rows and were left out."""
        return self.rows.skipped

    @property
    def split(self) -> RowSplit:
        """Which rows train, validate and test."""
        rows = self.rows
        labelled = rows.num_train + rows.num_test
        if self.folds is not None:
            return fold_rows(labelled, self.folds, self.fold, self.split_seed)
        if self.test_share is None and rows.num_test:
            return last_rows(rows.num_train, rows.num_test, self.val_share, 0)
        share = 0.1 if self.test_share is None else self.test_share
        return last_rows(labelled, 0, self.val_share, share)

    def prepare_data(self) -> None:
        """Make the arrays once a machine; other processes read them."""
        _ = self.split

    def setup(self, stage: str) -> None:
        """Load the rows in every process.

        Args:
            stage: Which loaders come next; the rows serve all.
        """
        _ = self.split

    def train_dataloader(self) -> TableLoader:
        """Batches of the rows that train, shuffled by Lightning's global seed and the epoch."""
        return self._loader(self.split.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> TableLoader | list[TableLoader]:
        """Batches of the rows that validate; none if there are no such rows."""
        return self._evaluated(self.split.valid)

    def test_dataloader(self) -> TableLoader | list[TableLoader]:
        """Batches of the rows that test; none if there are no such rows."""
        return self._evaluated(self.split.test)

    def predict_dataloader(self) -> TableLoader:
        """Batches of the unlabelled rows, in their order; of all, if every row is labelled."""
        labelled = self.rows.num_train + self.rows.num_test
        first = labelled if labelled < len(self.rows) else 0
        return self._loader(slice(first, len(self.rows)), self.eval_batch_size)

    def _read(self) -> TableRows:
        if self.data_name == "path":
            sources = given(*self._paths)
        else:
            sources = self.known.named(self.data_name, self.root)
        form = self._form(sources)
        rule = CategoryRule.of(form.num_fields, *self._rule)
        files = TableFiles(sources, form, rule, self.on_bad_rows)
        return files.rows(self.processed_dir, self.check_cache)

    def _evaluated(self, rows: slice | np.ndarray) -> TableLoader | list[TableLoader]:
        loader = self._loader(rows, self.eval_batch_size)
        return loader if loader.sampler.num_rows else []

    def _loader(
        self, rows: slice | np.ndarray, batch_size: int, shuffle: bool = False
    ) -> TableLoader:
        rank, world_size = 0, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        # What Lightning gives the samplers that it makes itself: the same in all processes.
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        order = BlockOrder(rows, batch_size, shuffle, seed, rank, world_size)
        return TableLoader(self.rows, order)
