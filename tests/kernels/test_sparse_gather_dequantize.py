import pytest
import torch

from lit_gnncompress.kernels import sparse_gather_dequantize
from lit_gnncompress.kernels.reference.sparse_gather_dequantize import (
    sparse_gather_dequantize as reference,
)
from tests.kernels.conftest import SIZES, random_sparse, sparse_rows_of

COLUMNS = [torch.uint8, torch.uint16, torch.int32]


@pytest.fixture(params=COLUMNS, ids=["gaps", "16-bit columns", "32-bit columns"])
def columns(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["values", "binary"])
def binary(request):
    return request.param


@pytest.mark.parametrize("size", [*SIZES, (9, 1500)])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_all_rows_and_chosen_ones(size, density, columns, binary, by_row):
    rows = random_sparse(*size, 3, density, columns, binary, by_row, zero_lo=not by_row)
    indices = [None, torch.zeros(0, dtype=torch.int64)]
    if size[0]:
        indices += [torch.randint(0, size[0], (30,)), torch.tensor([0, 0], dtype=torch.int32)]
    for index in indices:
        expected = rows.dense if index is None else rows.dense[index]
        assert torch.equal(sparse_gather_dequantize(*rows.args, index, rows.first), expected)
        assert torch.equal(reference(*rows.args, index, rows.first), expected)


def test_any_bits(bits, columns):
    rows = random_sparse(40, 300, bits, 0.2, columns)
    assert torch.equal(sparse_gather_dequantize(*rows.args, None, rows.first), rows.dense)
    assert torch.equal(reference(*rows.args, None, rows.first), rows.dense)


def test_pointers_of_32_bits(columns):
    rows = random_sparse(40, 300, 2, 0.2, columns)
    narrow = rows._replace(
        rowptr=rows.rowptr.int(), first=None if rows.first is None else rows.first.int()
    )
    assert torch.equal(sparse_gather_dequantize(*narrow.args, None, narrow.first), rows.dense)


@pytest.mark.parametrize("gap", [0, 1, 253, 254, 255, 256, 509, 510, 511, 765])
def test_gaps_around_the_byte_that_stores_nothing(gap):
    codes = torch.zeros(2, 1600, dtype=torch.uint8)
    codes[0, [gap, 2 * gap + 1]], codes[1, 1599] = 2, 1
    rows = sparse_rows_of(codes, torch.zeros(1), torch.ones(1), 2, torch.uint8)
    for run in (sparse_gather_dequantize, reference):
        assert torch.equal(run(*rows.args, None, rows.first), codes.float())


def test_columns_beyond_15_bits():
    codes = torch.zeros(1, 2**16, dtype=torch.uint8)
    codes[0, [0, 2**15, 2**16 - 1]] = 1
    rows = sparse_rows_of(codes, torch.zeros(1), torch.ones(1), 1, torch.uint16, binary=True)
    for run in (sparse_gather_dequantize, reference):
        assert torch.equal(run(*rows.args, None, None), codes.float())


def test_on_several_threads(columns):
    rows = random_sparse(400, 300, 3, 0.2, columns)
    index = torch.randint(0, 400, (8000,))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        found = sparse_gather_dequantize(*rows.args, index, rows.first)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found, rows.dense[index])


def test_torch_knows_the_operation(columns):
    rows = random_sparse(5, 30, 3, 0.2, columns)
    args = (*rows.args, torch.tensor([1, 4]), rows.first)
    torch.library.opcheck(torch.ops.lit_gnncompress.sparse_gather_dequantize.default, args)


def test_an_index_that_is_no_row():
    with pytest.raises(IndexError, match=r"index\[0\]=5 is no row"):
        sparse_gather_dequantize(*random_sparse(5, 30, 3).args, torch.tensor([5]))


def test_pointers_that_do_not_end_at_the_entries():
    rows = random_sparse(5, 30, 3)
    with pytest.raises(ValueError, match="rowptr runs from 0 to"):
        sparse_gather_dequantize(*rows._replace(rowptr=rows.rowptr[:-2]).args)


@pytest.mark.parametrize(
    ("rowptr", "columns"),
    [([0, 9, 1, 3], [1, 2, 3]), ([0, -7, 1, 3], [1, 2, 3]), ([0, 1, 2, 3], [1, 10, 3])],
)
def test_what_would_be_read_or_written_elsewhere(rowptr, columns):
    args = torch.tensor(rowptr), torch.tensor(columns, dtype=torch.int32), None
    with pytest.raises(ValueError, match="wrong in row"):
        sparse_gather_dequantize(*args, torch.zeros(1), torch.ones(1), 1, 10)
