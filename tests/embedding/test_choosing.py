import sys

import pytest
import torch

from lit_gnncompress.embedding.choosing import choose_shape, parameters_within
from lit_gnncompress.embedding.factors import TTShape
from lit_gnncompress.embedding.limits import beyond_orthogonal


def test_rank_eight_and_three_balanced_factors_by_default():
    assert choose_shape(1_000_000, 64) == TTShape((100, 100, 100), (4, 4, 4), (8, 8))


@pytest.mark.parametrize("factors", [2, 3, 4])
@pytest.mark.parametrize("max_parameters", [6_000, 20_000, 500_000])
def test_the_highest_rank_within_the_parameters(max_parameters, factors):
    shape = choose_shape(100_000, 64, max_parameters=max_parameters, num_factors=factors)
    assert shape.num_parameters <= max_parameters
    above = TTShape.of_rank(shape.rows, shape.columns, max(shape.ranks) + 1)
    assert above.num_parameters > max_parameters


def test_a_compression_next_to_nothing_allows_everything():
    allowed = parameters_within(1, 1, torch.float32, compression=2.2e-311)
    assert 10**9 < allowed <= sys.maxsize


def test_all_ranks_there_are_if_everything_fits():
    shape = choose_shape(27, 8, max_parameters=10**6)
    assert shape.ranks == TTShape.of_rank(shape.rows, shape.columns, 10**6).ranks


def test_a_fourth_factor_where_three_have_too_many_parameters():
    three = choose_shape(10**6, 64, rank=1)
    assert len(three.rows) == 3
    four = choose_shape(10**6, 64, max_parameters=three.num_parameters - 1)
    assert len(four.rows) == 4
    assert four.num_parameters < three.num_parameters


def test_columns_are_put_where_they_allow_orthogonal_cores():
    # 25 * 4 places would not do for the last core otherwise.
    shape = choose_shape(100_000, 96, rows=(100, 50, 25), rank=6)
    assert shape.columns[-1] == 4
    assert not beyond_orthogonal(shape)


def test_orthogonal_cores_limit_the_rank():
    free = choose_shape(1000, 64, max_parameters=20_000)
    limited = choose_shape(1000, 64, max_parameters=20_000, orthogonal=True)
    assert beyond_orthogonal(free)
    assert not beyond_orthogonal(limited)
    assert max(limited.ranks) < max(free.ranks)


def test_what_is_given_stays():
    assert choose_shape(1000, 64, rank=(3, 7), rows=(5, 10, 20), columns=(2, 8, 4)) == TTShape(
        (5, 10, 20), (2, 8, 4), (3, 7)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank: 0"),
        ({"rank": (4, 0)}, "rank: 0"),
        ({"rank": 4, "max_parameters": 100}, "the smallest cores of rank=4 have"),
        (
            {"max_parameters": 10},
            r"max_parameters=10 cannot be met \(1000 x 64 in 10 parameters\): the smallest cores",
        ),
        ({"max_parameters": 10, "size": "compression=6400"}, "compression=6400 cannot be met"),
        ({"rows": (10, 10, 9)}, "100 too few"),
        ({"columns": (4, 4, 3)}, "make 48 columns"),
        ({"rows": (10, 100), "columns": (4, 4, 4)}, "differ: 2 by rows, 3 by columns"),
        ({"rank": (4,), "rows": (10, 10, 10)}, "differ: 3 by rows, 2 by rank"),
        ({"num_factors": 5}, "num_factors: 5"),
        ({"rank": 8, "orthogonal": True}, "core 3 cannot be orthogonal"),
    ],
)
def test_what_cannot_be_chosen(arguments, message):
    with pytest.raises(ValueError, match=message):
        choose_shape(1000, 64, **arguments)
