import pytest
import torch

from lit_gnncompress.embedding.saved_numbers import SavedNumbers

NUMBERS = SavedNumbers("sizes", torch.int32, lambda sizes: f"the sizes {sizes}")


@pytest.fixture
def state():
    """A state with a parameter, and the numbers 3 and 5."""
    state = {"part.weight": torch.ones(2)}
    NUMBERS.save(state, "part.", (3, 5))
    return state


def take(state, own, strict=True):
    """The rest of a state, and what is wrong with it."""
    missing, wrong = [], []
    rest = NUMBERS.take(state, "part.", own, strict, missing, wrong)
    return [*rest], missing, wrong


def test_numbers_are_a_tensor_on_the_cpu(state):
    with torch.device("meta"):
        NUMBERS.save(state, "part.", (3, 5))
    saved = state["part.sizes"]
    assert (saved.dtype, saved.device.type, saved.tolist()) == (torch.int32, "cpu", [3, 5])


def test_equal_numbers_are_taken_out(state):
    assert take(state, [3, 5]) == (["part.weight"], [], [])
    assert "part.sizes" in state


def test_other_numbers_are_told(state):
    told = "part.sizes: the state has the sizes (3, 5), the table here the sizes (3, 4)."
    assert take(state, (3, 4)) == (["part.weight"], [], [told])


@pytest.mark.parametrize("strict", [True, False])
def test_numbers_that_are_not_there(state, strict):
    del state["part.sizes"]
    assert take(state, (3, 5), strict) == (["part.weight"], ["part.sizes"] if strict else [], [])
