import numpy as np
import pytest

from lit_gnncompress.data.clicks import clicks


def test_clicks_are_the_same_each_time_and_leave_the_generator_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    first, second, other = clicks(500), clicks(500), clicks(500, seed=1)
    assert np.array_equal(first.dense, second.dense)
    assert np.array_equal(first.sparse, second.sparse)
    assert np.array_equal(first.label, second.label)
    assert not np.array_equal(first.sparse, other.sparse)
    assert np.random.get_state()[1].tolist() == before
    assert (first.sparse.max(0) < first.num_embeddings).all()


@pytest.mark.parametrize(
    "arguments", [{"num_rows": 0}, {"num_dense": -1}, {"num_embeddings": (3, 0)}]
)
def test_clicks_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must be at least 1, num_dense=-?\d+ at least 0"):
        clicks(**arguments)
