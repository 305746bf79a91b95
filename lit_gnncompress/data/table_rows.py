"""Rows of numbers and categories, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK_ROWS = 4096
"""Rows beside each other that stay close when rows are shuffled: one read of a disk."""

WINDOW_BLOCKS = 64
"""Blocks whose rows are mixed with each other."""


class TableBatch(NamedTuple):
    """What a model of rows is given.

    Attributes:
        dense: Numbers, float32, shape ``(B, num_dense)``.
        sparse: The category of each field, int64, shape ``(B, F)``, from 0 in each field.
        label: 0 or 1, float32, shape ``(B,)``; NaN where rows have none.
    """

    dense: Tensor
    sparse: Tensor
    label: Tensor


@dataclass(frozen=True)
class TableRows:
    """Rows in memory or in mapped files: first those to train on, then published parts.

    Attributes:
        dense: float32, shape ``(N, num_dense)``.
        sparse: int32, shape ``(N, F)``, from 0 to below ``num_embeddings`` in each field.
        label: uint8, 0 or 1, shape ``(N,)``; of unlabelled rows 0.
        num_embeddings: Rows that the table of each field needs.
        num_train: How many rows are not in a published part.
        num_test: How many of those that follow are labelled, to test with; the others are not
            labelled.
        skipped: Lines of the files that were no rows.
    """

    dense: np.ndarray
    sparse: np.ndarray
    label: np.ndarray
    num_embeddings: tuple[int, ...]
    num_train: int
    num_test: int = 0
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.label)

    def batch(self, rows: slice | np.ndarray) -> TableBatch:
        """The rows as a batch of tensors of their own.

        Args:
            rows: A slice, or row numbers, int64 of shape ``(B,)``.
        """
        return TableBatch(
            torch.from_numpy(np.array(self.dense[rows], np.float32)),
            torch.from_numpy(np.array(self.sparse[rows], np.int64)),
            torch.from_numpy(self._labels(rows)),
        )

    def _labels(self, rows: slice | np.ndarray) -> np.ndarray:
        label = np.array(self.label[rows], np.float32)
        labelled = self.num_train + self.num_test
        if labelled < len(self):
            numbers = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
            label[numbers >= labelled] = np.nan
        return label


class BlockOrder:
    """The order in which batches take rows.

    Shuffled, it permutes blocks of consecutive rows, and rows among ``WINDOW_BLOCKS`` of them: near
    enough to a permutation of all, while files are read in long pieces and in little memory. Under
    several processes each takes every so-manieth batch.

    Args:
        rows: A slice with step 1, or row numbers, int64.
        batch_size: Rows in a batch; less where not every process would get one.
        shuffle: Whether to shuffle; then processes get equally many batches, so that up to one
            less than there are processes is left out.
        seed: Seed of the shuffle, which also depends on the epoch.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        rows: slice | np.ndarray,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rows, self.shuffle = rows, shuffle
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.num_rows = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        # A process without a batch would not take part in what the others do together.
        self.batch_size = min(batch_size, max(1, self.num_rows // world_size))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which gives each its own order; the trainer does it."""
        self.epoch = epoch

    def __len__(self) -> int:
        batches = -(-self.num_rows // self.batch_size)
        if self.shuffle and batches >= self.world_size:
            return batches // self.world_size
        return len(range(self.rank, batches, self.world_size))

    def __iter__(self) -> Iterator[slice | np.ndarray]:
        batches = self._shuffled() if self.shuffle else self._in_order()
        own = len(self)
        for number, batch in enumerate(batches):
            if own and number % self.world_size == self.rank:
                own -= 1
                yield batch

    def _in_order(self) -> Iterator[slice | np.ndarray]:
        for first in range(0, self.num_rows, self.batch_size):
            last = min(first + self.batch_size, self.num_rows)
            if isinstance(self.rows, slice):
                yield slice(self.rows.start + first, self.rows.start + last)
            else:
                yield self.rows[first:last]

    def _shuffled(self) -> Iterator[np.ndarray]:
        draw = np.random.default_rng((self.seed, self.epoch))
        blocks = draw.permutation(-(-self.num_rows // BLOCK_ROWS))
        left = np.empty(0, np.int64)
        for first in range(0, len(blocks), WINDOW_BLOCKS):
            near = blocks[first : first + WINDOW_BLOCKS, None] * BLOCK_ROWS
            window = (near + np.arange(BLOCK_ROWS)).ravel()
            window = draw.permutation(window[window < self.num_rows])
            if isinstance(self.rows, slice):
                window += self.rows.start
            else:
                window = self.rows[window]
            window = np.concatenate([left, window])
            whole = len(window) // self.batch_size * self.batch_size
            yield from window[:whole].reshape(-1, self.batch_size)
            left = window[whole:]
        if len(left):
            yield left


class TableLoader:
    """Yields batches of rows.

    It is no ``torch.utils.data.DataLoader``: a batch is a few slices, quicker made than sent from
    another process, and Lightning leaves other iterables alone, so that the order of rows and each
    process's share of them are those of ``sampler``.

    Args:
        rows: What batches are of.
        sampler: Which rows, in which order.

    Attributes:
        sampler: Likewise; Lightning tells it the epoch.
    """

    batch_sampler = None  # where Lightning looks before it looks at the sampler

    def __init__(self, rows: TableRows, sampler: BlockOrder) -> None:
        self.rows, self.sampler = rows, sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[TableBatch]:
        for rows in self.sampler:
            yield self.rows.batch(rows)
