"""Which rows train, validate and test."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class RowSplit(NamedTuple):
    """The rows of each part: a slice, or row numbers in their order, int64."""

    train: slice | np.ndarray
    valid: slice | np.ndarray
    test: slice | np.ndarray


def last_rows(num_rows: int, num_test: int, val_share: float, test_share: float) -> RowSplit:
    """The last rows test, those before them validate: files of logs are in the order of time.

    Args:
        num_rows: Rows that are not in a published part.
        num_test: Rows of a published part to test with, which follow; 0 if there is none.
        val_share: Share of ``num_rows`` to validate with.
        test_share: Share of them to test with, if no part is published.

    Raises:
        ValueError: If a share is out of range, or no row is left to train on.
    """
    for name, share in (("val_share", val_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise ValueError(f"{name}={share} must be from 0 to below 1")
    held = 0 if num_test else round(test_share * num_rows)
    valid = round(val_share * num_rows)
    left = num_rows - held - valid
    if left < 1:
        raise ValueError(
            f"of {num_rows} rows val_share={val_share} and test_share={test_share} leave none to "
            f"train on: lower them"
        )
    first = num_rows - held
    return RowSplit(slice(0, left), slice(left, first), slice(first, num_rows + num_test))


def fold_rows(num_rows: int, folds: int, fold: int, seed: int) -> RowSplit:
    """Rows of a k-fold cross-validation.

    Rows are drawn into ``folds`` parts of the same size: one tests, the next one validates, all
    others train. The global random state is neither read nor moved.

    Args:
        num_rows: Number of rows; a permutation of them is in memory, 8 bytes each.
        folds: Number of parts, at least 3.
        fold: Which one tests, from 0.
        seed: Seed of the draw.

    Raises:
        ValueError: If a number is out of range.
    """
    if not 3 <= folds <= num_rows:
        raise ValueError(
            f"folds={folds} must be from 3, one each to train, validate and test, to the number of "
            f"rows, {num_rows}"
        )
    if not 0 <= fold < folds:
        raise ValueError(f"fold={fold} must be from 0 to {folds - 1}, as folds={folds}")
    parts = np.array_split(np.random.default_rng(seed).permutation(num_rows), folds)
    test, valid = parts[fold], parts[(fold + 1) % folds]
    trains = np.ones(num_rows, bool)
    trains[test] = trains[valid] = False
    return RowSplit(np.flatnonzero(trains), np.sort(valid), np.sort(test))
