import math

import pytest

from lit_gnncompress.embedding.factors import (
    TTShape,
    balanced_columns,
    balanced_rows,
    graph_rows,
    highest_ranks,
    smallest_rows,
)

PRODUCTS = (125, 140, 140), (4, 5, 5)
PAPERS = (480, 500, 500), (8, 4, 4)


@pytest.mark.parametrize(("rank", "parameters"), [(8, 54_400), (16, 198_400), (32, 755_200)])
def test_products_has_the_parameters_of_the_paper(rank, parameters):
    assert TTShape.of_rank(*PRODUCTS, rank).num_parameters == parameters


@pytest.mark.parametrize(("rank", "reduction"), [(8, 81_362), (64, 1_659)])
def test_papers100m_shrinks_as_in_the_paper(rank, reduction):
    shape = TTShape.of_rank(*PAPERS, rank)
    assert 111_059_956 * 128 // shape.num_parameters == reduction


def test_the_table_of_the_talk():
    shape = TTShape((100, 200, 250), (4, 2, 3), (16, 16))
    assert (shape.num_rows, shape.embedding_dim) == (5_000_000, 24)
    assert shape.core_shapes == ((100, 1, 4, 16), (200, 16, 2, 16), (250, 16, 3, 1))
    assert shape.num_parameters == 100 * 4 * 16 + 200 * 16 * 2 * 16 + 250 * 16 * 3


@pytest.mark.parametrize("num_factors", [2, 3, 4])
@pytest.mark.parametrize("num_embeddings", [1, 2, 7, 64, 1000, 4097, 2_449_029, 111_059_956])
def test_balanced_rows_have_room_and_little_more(num_embeddings, num_factors):
    rows = balanced_rows(num_embeddings, num_factors)
    assert len(rows) == num_factors
    assert num_embeddings <= math.prod(rows)
    assert max(rows) - min(rows) <= 1
    # No factor could be smaller.
    assert math.prod(rows) // max(rows) * (max(rows) - 1) < num_embeddings
    assert rows == tuple(sorted(rows))


@pytest.mark.parametrize(
    ("embedding_dim", "num_factors", "columns"),
    [
        (64, 3, (4, 4, 4)),
        (100, 3, (5, 5, 4)),
        (128, 3, (8, 4, 4)),
        (24, 3, (4, 3, 2)),
        (24, 2, (6, 4)),
        (50, 4, (5, 5, 2, 1)),
        (7, 3, (7, 1, 1)),
        (1, 2, (1, 1)),
    ],
)
def test_balanced_columns(embedding_dim, num_factors, columns):
    assert balanced_columns(embedding_dim, num_factors) == columns


@pytest.mark.parametrize("num_factors", [2, 3, 4])
@pytest.mark.parametrize("num_embeddings", [1, 30, 13_752, 19_717, 2_449_029])
def test_graph_rows_have_parts_of_the_asked_size_and_free_places(num_embeddings, num_factors):
    rows = graph_rows(num_embeddings, num_factors, part_size=50, padding=0.05)
    assert len(rows) == num_factors
    assert rows[0] == -(-num_embeddings // 50)
    assert math.prod(rows) >= 1.05 * num_embeddings
    # Rounding up takes at most another place of each leaf.
    leaf = math.prod(rows[:-1])
    assert math.prod(rows) <= 1.05 * num_embeddings + 2 * max(leaf, 50)


def test_graph_rows_have_few_parts_within_a_part():
    assert graph_rows(13_752) == (276, 6, 9)
    assert graph_rows(13_800, padding=0) == (276, 6, 9)  # 50 nodes a part: 6 * 8 are too few
    assert graph_rows(1, 4) == (1, 1, 1, 2)


def test_there_are_three_factors_if_nothing_is_said():
    assert balanced_rows(1_000_000) == (100, 100, 100)
    assert balanced_columns(100) == (5, 5, 4)


def test_ranks_that_suffice():
    assert highest_ranks((10, 2, 3), (4, 2, 2)) == (24, 6)
    assert TTShape.of_rank((10, 2, 3), (4, 2, 2), 16).ranks == (16, 6)
    assert TTShape.of_rank((10, 2, 3), (4, 2, 2), 5).ranks == (5, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((10,), (4,), ()), "rows: 1 factors"),
        (((2,) * 5, (2,) * 5, (2,) * 4), "rows: 5 factors"),
        (((10, 10), (2, 2, 2), (4,)), "both need as many"),
        (((10, 10), (2, 2), (4, 4)), "between 2 cores are 1"),
        (((10, 10), (2, 2), (0,)), "rank: 0 must be a whole number"),
        (((10, 0), (2, 2), (1,)), "rows: 0 must be"),
        (((10, 10), (2, 2.5), (1,)), "columns: 2.5 must be"),
    ],
)
def test_what_is_no_shape(arguments, message):
    with pytest.raises(ValueError, match=message):
        TTShape(*arguments)


@pytest.mark.parametrize(
    "call", [highest_ranks, lambda rows, columns: TTShape.of_rank(rows, columns, 4)]
)
def test_as_many_rows_as_columns(call):
    told = r"columns=\(2, 2, 2\) are 3 factors and rows=\(10, 10\) 2: both need as many"
    with pytest.raises(ValueError, match=told):
        call([10, 10], [2, 2, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: balanced_rows(0), "num_embeddings: 0"),
        (lambda: balanced_rows(10, 5), "num_factors: 5"),
        (lambda: balanced_columns(0), "embedding_dim: 0"),
        (lambda: balanced_columns(10, 1), "num_factors: 1"),
        (lambda: graph_rows(0), "^num_embeddings: 0"),
        (lambda: graph_rows(10, 5), "^num_factors: 5"),
        (lambda: graph_rows(10, padding=-1), "padding=-1 must be a share"),
        (lambda: graph_rows(10, padding=math.inf), "padding=inf must be .* finite: 0.05 leaves"),
        (lambda: graph_rows(10, padding=math.nan), "padding=nan must be .* finite: 0.05 leaves"),
        (lambda: graph_rows(10, part_size=0), "part_size: 0"),
    ],
)
def test_what_has_no_factors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("columns", [(8, 8), (8, 2, 4), (4, 4, 4), (4, 4, 2, 2)])
@pytest.mark.parametrize("num_embeddings", [1, 50_000, 10_000_000])
def test_smallest_rows_leave_fewest_parameters(num_embeddings, columns):
    rows = smallest_rows(num_embeddings, columns, rank=16)
    assert math.prod(rows) >= num_embeddings
    found = TTShape.of_rank(rows, columns, 16)
    balanced = TTShape.of_rank(balanced_rows(num_embeddings, len(columns)), columns, 16)
    assert found.num_parameters <= balanced.num_parameters
    if num_embeddings == 10_000_000:
        sizes = [math.prod(shape) for shape in found.core_shapes]
        assert max(sizes) < 1.2 * min(sizes)


def test_smallest_rows_of_what_is_no_table():
    with pytest.raises(ValueError, match="columns: 1 factors"):
        smallest_rows(10, (4,), 8)
    with pytest.raises(ValueError, match="rank: 0"):
        smallest_rows(10, (4, 4), 0)
    with pytest.raises(ValueError, match="num_embeddings: 0"):
        smallest_rows(0, (4, 4), 8)
