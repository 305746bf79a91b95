import torch

from lit_gnncompress.data import normalize_rows


def test_binary_rows_become_constant_rows():
    x = torch.tensor([[1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    expected = [[1 / 3, 1 / 3, 0.0, 1 / 3], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    assert torch.equal(normalize_rows(x), torch.tensor(expected))


def test_small_rows_sum_to_one_too():
    assert normalize_rows(torch.tensor([[0.1, 0.1]])).tolist() == [[0.5, 0.5]]


def test_features_with_negative_entries_are_left_alone():
    x = torch.tensor([[1.0, -1.0], [2.0, 2.0]])
    assert normalize_rows(x) is x
