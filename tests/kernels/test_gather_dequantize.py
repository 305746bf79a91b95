import math

import pytest
import torch

from lit_gnncompress.kernels import gather_dequantize
from lit_gnncompress.kernels.reference.gather_dequantize import gather_dequantize as reference
from tests.kernels.conftest import SIZES, random_packed, strided


@pytest.mark.parametrize("size", SIZES)
def test_all_rows(size, bits, by_row):
    rows = random_packed(*size, bits, by_row)
    assert torch.equal(gather_dequantize(*rows.args), rows.dense)
    assert torch.equal(reference(*rows.args, None), rows.dense)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("size", [size for size in SIZES if size[0]])
def test_chosen_rows(size, bits, by_row, dtype):
    rows = random_packed(*size, bits, by_row)
    for taken in (0, 1, 3 * size[0] + 20):
        index = torch.randint(0, size[0], (taken,), dtype=dtype)
        assert torch.equal(gather_dequantize(*rows.args, index), rows.dense[index])
        assert torch.equal(reference(*rows.args, index), rows.dense[index])


def test_no_rows_of_none():
    rows = random_packed(0, 5, 3)
    assert gather_dequantize(*rows.args, torch.zeros(0, dtype=torch.int64)).shape == (0, 5)


def test_signs_of_zero_are_those_of_torch():
    rows = random_packed(3, 20, 1)._replace(lo=torch.tensor([-0.0]), scale=torch.tensor([1.0]))
    signs = torch.signbit(gather_dequantize(*rows.args))
    assert torch.equal(signs, torch.signbit(rows.dense))


def test_infinite_ranges_are_those_of_torch():
    rows = random_packed(3, 20, 2)._replace(scale=torch.tensor([math.inf]))
    assert torch.equal(gather_dequantize(*rows.args).isnan(), rows.dense.isnan())


def test_tensors_that_are_not_contiguous(bits):
    rows = random_packed(9, 40, bits, by_row=True)
    packed, lo, scale = strided(rows.packed), strided(rows.lo), strided(rows.scale)
    index = torch.arange(18)[::2] % 9
    assert torch.equal(gather_dequantize(packed, lo, scale, bits, 40, index), rows.dense[index])


def test_on_several_threads(bits, by_row):
    rows = random_packed(1000, 257, bits, by_row)
    index = torch.randint(0, 1000, (5000,))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(gather_dequantize(*rows.args, index), rows.dense[index])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("index", [None, torch.tensor([2, 0])])
def test_torch_knows_the_operation(index):
    rows = random_packed(4, 20, 3, by_row=True)
    args = (*rows.args, index)
    torch.library.opcheck(torch.ops.lit_gnncompress.gather_dequantize.default, args)


def test_inside_of_a_compiled_function():
    rows = random_packed(4, 20, 3)

    def twice(packed, index):
        return gather_dequantize(packed, *rows.args[1:], index) * 2

    index = torch.tensor([2, 0])
    compiled = torch.compile(twice, fullgraph=True, backend="eager")
    assert torch.equal(compiled(rows.packed, index), 2 * rows.dense[index])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([0, 3]), r"index\[1\]=3 is no row: there are 3"),
        (torch.tensor([0, 1, -1]), r"index\[2\]=-1 is no row"),
    ],
)
def test_an_index_that_is_no_row(index, message):
    with pytest.raises(IndexError, match=message):
        gather_dequantize(*random_packed(3, 5, 4).args, index)


@pytest.mark.parametrize(
    ("change", "index", "message"),
    [
        ({}, torch.tensor([0.0]), "index must be int64 or int32"),
        ({}, torch.zeros(1, dtype=torch.int64, device="meta"), "index is on meta"),
        ({"width": 40}, None, "width=40 and bits=4 take 24"),
        ({"bits": 0}, None, "bits=0"),
        ({"lo": torch.zeros(2)}, None, "lo must be float32"),
        ({"scale": torch.zeros(1, 1)}, None, "scale must be float32"),
    ],
)
def test_what_does_not_fit(change, index, message):
    with pytest.raises(ValueError, match=message):
        gather_dequantize(*random_packed(3, 5, 4)._replace(**change).args, index)
