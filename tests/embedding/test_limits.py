import pytest

from lit_gnncompress.embedding.factors import TTShape
from lit_gnncompress.embedding.limits import (
    beyond_orthogonal,
    check_columns,
    check_orthogonal,
    check_rows,
)


def test_rows_without_room_say_by_how_much_and_what_would_do():
    with pytest.raises(ValueError, match="room for 900 embeddings, 100 too few") as error:
        check_rows((9, 10, 10), 1000)
    assert "rows=(9, 10, 12)" in str(error.value)
    assert "rows=(10, 10, 10)" in str(error.value)
    check_rows((10, 10, 10), 1000)


def test_columns_of_another_width_say_what_would_do():
    with pytest.raises(ValueError, match=r"make 60 columns, embedding_dim=64: columns=\(4, 4, 4\)"):
        check_columns((5, 4, 3), 64)


def test_the_orthogonality_limit_names_the_core_and_an_order_of_the_columns():
    shape = TTShape((125, 140, 140), (2, 5, 10), (16, 16))
    assert beyond_orthogonal(shape) == [3]
    with pytest.raises(ValueError, match=r"core 3 .* R_2 \* q_3 = 16 \* 10 = 160") as error:
        check_orthogonal(shape)
    assert "160 is more than p_3 * R_3 = 140 * 1 = 140, with rows=" in str(error.value)
    assert "Take columns=(10, 5, 2) or rank=" in str(error.value)
    check_orthogonal(TTShape((125, 140, 140), (10, 5, 2), (16, 16)))


def test_the_orthogonality_limit_names_a_rank_where_no_order_does():
    with pytest.raises(ValueError, match="rank=2 or init=") as error:
        check_orthogonal(TTShape((10, 10, 10), (4, 4, 4), (8, 8)))
    assert "Take columns" not in str(error.value)
    check_orthogonal(TTShape((10, 10, 10), (4, 4, 4), (2, 2)))


def test_a_single_factor_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^rows: 1 factors"):
        check_rows((10,), 10)
    with pytest.raises(ValueError, match=r"^columns: 1 factors"):
        check_columns((4,), 4)
