from collections import Counter

import numpy as np
import pytest

from lit_gnncompress.data.category_counts import CategoryCounts
from lit_gnncompress.data.category_rows import CategoryRows, CategoryRule


def draw(rows=20_000, seed=0):
    """Three fields: few categories, many, and many that are large and rare."""
    random = np.random.default_rng(seed)
    few = random.integers(5, size=rows)
    many = np.floor(3000 * random.random(rows) ** 3)
    large = 2**32 - 1 - random.integers(10_000, size=rows) * 400_000
    return np.stack([few, many, large], axis=1).astype(np.uint32)


def encode(categories, rule, folder, slots=2**20, blocks=7):
    counts = CategoryCounts(rule.counted, folder, slots)
    for block in np.array_split(categories, blocks):
        counts.add(block)
    rows = CategoryRows(rule, counts, folder)
    out = categories.copy()
    rows.replace(lambda: iter(np.array_split(out, blocks)), lambda block: None, slots)
    return out, rows


def expected(column, min_frequency, most, shared):
    often = Counter(column.tolist())
    kept = sorted((c for c in often if often[c] >= min_frequency), key=lambda c: (-often[c], c))
    place = {category: shared + k for k, category in enumerate(kept[:most])}
    return [place.get(c, c % shared) for c in column.tolist()], shared + len(place)


@pytest.mark.parametrize(
    ("min_frequency", "most", "shared"),
    [(1, 10**7, 1), (3, 10**7, 1), (1, 100, 1), (2, 100, 13), (1, 0, 50), (10**6, 10**7, 1)],
)
def test_rows_are_those_of_counting_by_hand(min_frequency, most, shared, tmp_path):
    categories = draw()
    rule = CategoryRule.of(3, min_frequency, most, shared)
    out, rows = encode(categories, rule, tmp_path)
    for field in range(3):
        places, size = expected(categories[:, field], min_frequency, most, shared)
        assert out[:, field].tolist() == places
        assert rows.num_embeddings[field] == size


@pytest.mark.parametrize("most", [10**7, 300, 7])
def test_little_memory_gives_the_same(most, tmp_path):
    categories, rule = draw(), CategoryRule.of(3, 2, most, 1)
    for name in ("much", "little"):
        (tmp_path / name).mkdir()
    much, known = encode(categories, rule, tmp_path / "much")
    little, found = encode(categories, rule, tmp_path / "little", slots=2**12)
    assert np.array_equal(much, little)
    assert known.num_embeddings == found.num_embeddings
    if most > 1000:
        assert found.num_passes(2**12) > known.num_passes(2**20) == 1


def test_counts_are_written_out_and_merged(tmp_path):
    categories = draw()
    counts = CategoryCounts([False, True, True], tmp_path, slots=2**12)
    for block in np.array_split(categories, 9):
        counts.add(block)
    assert len(list(tmp_path.iterdir())) > 2
    for field in (2, 1):
        often = Counter(categories[:, field].tolist())
        found = counts.most_frequent(field, 2, 10**7).tolist()
        assert found == sorted((c for c in often if often[c] > 1), key=lambda c: (-often[c], c))
    assert not list(tmp_path.iterdir())


def test_each_field_has_numbers_of_its_own(tmp_path):
    categories = draw()
    rule = CategoryRule.of(3, 1, [3, 0, 10], [1, 20, 4])
    out, rows = encode(categories, rule, tmp_path)
    assert rows.num_embeddings == (4, 20, 14)
    assert (out.max(0) < rows.num_embeddings).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, 1), r"min_frequency=0 must be at least 1"),
        ((1, -1, 1), r"max_categories=-1 must be at least 0 in each field"),
        ((1, 10, 0), r"hash_buckets=0 must be at least 1 in each field"),
        ((1, [1, 2], 1), r"max_categories has 2 numbers, but there are 3 fields"),
        ((1, 10, [1, 1, 0]), r"hash_buckets=\[1, 1, 0\] must be at least 1"),
        ((1, 2**31 - 1, 1), r"allow a table of 2,147,483,648 rows: rows are int32"),
    ],
)
def test_rules_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CategoryRule.of(3, *arguments)
