import numpy as np
import pytest

from lit_gnncompress.data.table_split import fold_rows, last_rows


def test_the_last_rows_test_and_those_before_validate():
    assert last_rows(100, 0, 0.1, 0.2) == (slice(0, 70), slice(70, 80), slice(80, 100))
    assert last_rows(100, 0, 0, 0) == (slice(0, 100), slice(100, 100), slice(100, 100))


def test_a_published_part_tests():
    assert last_rows(100, 40, 0.1, 0.2) == (slice(0, 90), slice(90, 100), slice(100, 140))


def test_folds_test_each_row_once():
    splits = [fold_rows(50, 4, fold, seed=3) for fold in range(4)]
    for split in splits:
        assert sorted(np.concatenate(split).tolist()) == list(range(50))
        assert len(split.test) in (12, 13)
    assert sorted(np.concatenate([split.test for split in splits]).tolist()) == list(range(50))
    assert np.array_equal(splits[0].valid, splits[1].test)
    assert np.array_equal(splits[3].valid, splits[0].test)


def test_folds_depend_on_the_seed_alone():
    np.random.seed(0)
    first = fold_rows(50, 5, 0, 1)
    np.random.seed(1)
    assert np.array_equal(first.test, fold_rows(50, 5, 0, 1).test)
    assert not np.array_equal(first.test, fold_rows(50, 5, 0, 2).test)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 0, 1.0, 0.1), r"val_share=1.0 must be from 0 to below 1"),
        ((100, 0, 0.1, -0.1), r"test_share=-0.1 must be"),
        ((100, 0, 0.5, 0.5), r"of 100 rows val_share=0.5 and test_share=0.5 leave none"),
    ],
)
def test_shares_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        last_rows(*arguments)


@pytest.mark.parametrize(
    ("folds", "fold", "message"),
    [
        (2, 0, r"folds=2 must be from 3"),
        (51, 0, r"folds=51 .* number of rows, 50"),
        (5, 5, r"fold=5 must be from 0 to 4"),
    ],
)
def test_folds_that_cannot_be_are_refused(folds, fold, message):
    with pytest.raises(ValueError, match=message):
        fold_rows(50, folds, fold, 0)
