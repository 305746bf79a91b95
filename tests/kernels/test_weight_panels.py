import numpy as np
import pytest
import torch

from lit_gnncompress.kernels.cpu.weight_panels import turn_panel


@pytest.mark.parametrize(
    ("outputs", "width", "lanes"), [(1, 1, 16), (16, 16, 16), (33, 50, 32), (40, 17, 64)]
)
def test_columns_become_rows_and_what_is_missing_zeros(outputs, width, lanes):
    weight = torch.randn(outputs, width)
    rows = -(-width // 16) * 16
    for first in range(0, outputs, lanes):
        panel, sums = np.full(rows * lanes, np.nan, np.float32), np.full(lanes, np.nan, np.float32)
        turn_panel(weight.numpy(), first, lanes, panel, sums)
        expected = torch.zeros(rows, lanes)
        part = weight[first : first + lanes]
        expected[:width, : part.size(0)] = part.T
        assert torch.equal(torch.from_numpy(panel).view(rows, lanes), expected)
        torch.testing.assert_close(torch.from_numpy(sums), expected.sum(0))
