import os

import pytest
import torch
from torch_geometric.datasets import Planetoid

from lit_gnncompress.storage import lossless_bytes

BINARY = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0]])


def sparse(rows, columns, places, value=1.0):
    x = torch.zeros(rows, columns)
    x[tuple(torch.tensor(places).t())] = value
    return x


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (BINARY, (3, "1 bit")),
        (BINARY * 7, (3, "1 bit")),
        (BINARY * torch.tensor([[1], [0.5], [1]]), (6, "1 bit")),  # a count per row
        (BINARY * torch.tensor([[1], [0.3], [1]]), (15, "1 bit")),  # a float per row
        (BINARY * torch.tensor([[-1], [-0.5], [-1]]), (15, "1 bit")),  # no count is negative
        (BINARY * torch.tensor([[1], [2], [1]]), (15, "1 bit")),
        (torch.tensor([[0.1, 0.2], [0.3, 0.4]]), (16, "dense fp32")),
        (torch.zeros(2, 9), (4, "1 bit")),
        (torch.zeros(0, 5), (0, "dense fp32")),
        # 3 nonzeros: columns of 2 bytes, 3 row pointers of 4; values of 4 where they differ
        (sparse(2, 400, [[0, 7], [1, 9], [1, 10]]), (18, "binary CSR")),
        (sparse(2, 400, [[0, 7], [1, 9], [1, 10]], torch.tensor([1.0, 2, 3])), (30, "CSR fp32")),
        # past 65,536 columns, they take 4 bytes
        (sparse(1, 65536, [[0, 65535]]), (10, "binary CSR")),
        (sparse(1, 65537, [[0, 65536]]), (12, "binary CSR")),
    ],
)
def test_the_smallest_exact_size(x, expected):
    assert lossless_bytes(x) == expected


@pytest.mark.parametrize(("count", "expected"), [(255, 1), (256, 4)])
def test_a_count_takes_a_byte_up_to_255(count, expected):
    x = torch.zeros(2, 256)
    x[0, :count], x[1, 0] = 1 / count, 1.0
    assert lossless_bytes(x)[0] == 2 * 32 + 2 * expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half, torch.double])
def test_any_precision(dtype):
    assert lossless_bytes(BINARY.to(dtype)) == (3, "1 bit")


def test_cora_as_in_the_notes(tmp_path):
    root = os.environ.get("GNNCOMPRESS_DATA")
    if not root or not os.path.isdir(os.path.join(root, "Planetoid", "Cora", "raw")):
        pytest.skip("needs raw data sets: set GNNCOMPRESS_DATA to their folder")

    class Elsewhere(Planetoid):
        processed_dir = str(tmp_path)  # the folder of raw files stays as it is

    x = Elsewhere(os.path.join(root, "Planetoid"), "Cora")[0].x
    normalised = x / x.sum(1, keepdim=True).clamp(min=1)
    assert lossless_bytes(normalised) == (111_976, "binary CSR")
    assert lossless_bytes(x) == (111_976 - 2708, "binary CSR")
