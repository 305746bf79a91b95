"""Orders of categories: what occurs with the same lies together, what is frequent comes first."""

import numpy as np
import pytest
import torch

from lit_gnncompress.embedding.cooccurrence import cooccurrence_order, frequency_order

SIZE, GROUPS, ROWS = 400, 8, (8, 53)


def rows_of_groups(num_rows=20_000, noise=0.5, dtype=torch.int64):
    """Rows whose first field has groups that share values of others, and the group of each.

    Small numbers are frequent, and in any group; two fields tell nothing.
    """
    draw = np.random.default_rng(0)
    group = draw.permutation(SIZE) % GROUPS
    own = (SIZE * draw.random(num_rows) ** 2).astype(int)
    columns = [own, draw.integers(3, size=num_rows), draw.integers(50, size=num_rows)]
    for _ in range(3):
        of_group = group[own] * 20 + draw.integers(20, size=num_rows)
        any_value = draw.integers(20 * GROUPS, size=num_rows)
        columns.append(np.where(draw.random(num_rows) < noise, any_value, of_group))
    return torch.tensor(np.stack(columns, axis=1), dtype=dtype), torch.from_numpy(group)


def purity(order, group):
    """Share of the categories that are of the group that most of their part are of."""
    count = torch.zeros(order.num_parts(1), GROUPS)
    count.index_put_((order.parts(1), group), torch.ones(SIZE), accumulate=True)
    return float(count.amax(1).sum() / SIZE)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("field", [0, 2])
def test_groups_become_parts(field, dtype):
    categories, group = rows_of_groups(dtype=dtype)
    categories = categories[:, [*range(1, field + 1), 0, *range(field + 1, 6)]]
    order = cooccurrence_order(categories, field, SIZE, ROWS)
    assert purity(order, group) > 0.9  # 0.23 in random order
    assert (order.method, order.rows, order.graph_hash) == ("cooccurrence", ROWS, None)


def test_a_sample_does_and_is_spread_over_all_rows():
    categories, group = rows_of_groups()
    nonsense = categories[:, :1].expand(-1, 6) * 0
    early = torch.cat([nonsense, categories])
    assert purity(cooccurrence_order(early, 0, SIZE, ROWS, max_rows=20_000), group) > 0.8
    assert purity(cooccurrence_order(categories[:1000], 0, SIZE, ROWS), group) < 0.8


def test_seeds_decide():
    categories, _ = rows_of_groups(3000)
    state = torch.get_rng_state()
    places = [
        cooccurrence_order(categories, 0, SIZE, ROWS, seed=seed, max_rows=2000).place
        for seed in (0, 0, 1)
    ]
    assert torch.equal(places[0], places[1])
    assert not torch.equal(places[0], places[2])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_rows", [0, 1, 2])
def test_categories_without_links_lie_where_there_is_room(num_rows):
    order = cooccurrence_order(torch.arange(3 * num_rows).view(-1, 3), 1, 9, (3, 3))
    assert sorted(order.place.tolist()) == list(range(9))


def test_a_table_of_which_few_rows_occur_is_used_evenly():
    categories, _ = rows_of_groups()
    order = cooccurrence_order(categories, 0, 5 * SIZE, (10, 15, 15))
    count = torch.bincount(order.parts(1)[:SIZE], minlength=10)
    assert count.min() > 20
    assert count.max() < 60


def test_frequent_categories_come_first():
    categories = torch.tensor([5, 3, 3, 0, 5, 5])
    for values in (categories, categories.int(), torch.stack([categories, categories])[0]):
        order = frequency_order(values, 7, (2, 4))
        assert order.node.tolist() == [5, 3, 0, 1, 2, 4, 6, -1]
        assert (order.method, order.graph_hash) == ("frequency", None)
    assert frequency_order(categories[:0], 3, (3, 1)).place.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[0, 1]], 0, 2, (2, 2)), TypeError, "must be a tensor, got list"),
        ((torch.zeros(2, 2), 0, 2, (2, 2)), TypeError, "int64 or int32, got torch.float32"),
        ((torch.zeros(2).long(), 0, 2, (2, 2)), ValueError, r"shape \(2,\); \(n, F\) is needed"),
        ((torch.zeros(2, 1).long(), 0, 2, (2, 2)), ValueError, "single column.*frequency_order"),
        ((torch.zeros(2, 3).long(), 3, 2, (2, 2)), ValueError, "field=3 is none of the 3 columns"),
        ((torch.zeros(2, 3).long(), 0, 5, (2, 2)), ValueError, "4 nodes, 1 too few"),
        ((torch.tensor([[0, 4]]), 1, 4, (2, 2)), IndexError, r"\[:, 1\] has the category 4"),
        ((torch.tensor([[-1, 4]]), 0, 4, (2, 2)), IndexError, "category -1: num_embeddings=4"),
    ],
)
def test_bad_rows_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        cooccurrence_order(*arguments)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="max_rows=0 must be 1 or more"):
        cooccurrence_order(torch.zeros(2, 2).long(), 0, 2, (2, 2), max_rows=0)
    with pytest.raises(ValueError, match=r"shape \(2, 2\); \(n,\) is needed"):
        frequency_order(torch.zeros(2, 2).long(), 2, (2, 2))
    with pytest.raises(IndexError, match="categories has the category 2: num_embeddings=2"):
        frequency_order(torch.tensor([2]), 2, (2, 2))
    with pytest.raises(ValueError, match="4 nodes, 1 too few"):
        frequency_order(torch.tensor([2]), 5, (2, 2))
