import pytest
import torch
import torch.nn.functional as F

from lit_gnncompress.kernels.layout import GAP
from lit_gnncompress.kernels.reference import sparse_linear as reference
from lit_gnncompress.kernels.reference import sparse_linear_backward as reference_backward
from lit_gnncompress.kernels.sparse_linear import _sparse_linear, sparse_linear
from lit_gnncompress.kernels.sparse_linear_backward import (
    _sparse_linear_backward,
    sparse_linear_backward,
)
from tests.kernels.conftest import SIZES, random_sparse, strided

COLUMNS = [torch.uint16, torch.int32, torch.uint8]
SHAPES = [*SIZES, (40, 2000), (300, 60)]


def close(result, expected):
    tolerance = 1e-5 * max(1.0, expected.abs().max().item() if expected.numel() else 1.0)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=tolerance)


@pytest.fixture(params=COLUMNS, ids=["uint16", "int32", "gaps"])
def columns(request):
    return request.param


@pytest.mark.parametrize(("binary", "bits", "density"), [(True, 1, 0.01), (False, 5, 0.3)])
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_equals_the_dense_product(rows, width, binary, bits, density, columns, by_row):
    x = random_sparse(rows, width, bits, density, columns, binary, by_row, zero_lo=False)
    for outputs in (0, 1, 16, 33, 70, 200):
        weight, grad = torch.randn(outputs, width), torch.randn(rows, outputs)
        result = sparse_linear(*x.args, weight, x.first)
        assert result.shape == (rows, outputs)
        close(result, F.linear(x.dense, weight))
        close(result, reference.sparse_linear(*x.args, weight, x.first))
        result = sparse_linear_backward(*x.args, grad, x.first)
        assert result.shape == (outputs, width)
        close(result, grad.T @ x.dense)
        close(result, reference_backward.sparse_linear_backward(*x.args, grad, x.first))


def test_every_number_of_bits(bits, columns):
    x = random_sparse(33, 100, bits, 0.3, columns)
    weight, grad = torch.randn(20, 100), torch.randn(33, 20)
    close(sparse_linear(*x.args, weight, x.first), F.linear(x.dense, weight))
    close(sparse_linear_backward(*x.args, grad, x.first), grad.T @ x.dense)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_none_and_all_stored(density, columns):
    x = random_sparse(33, 100, 4, density, columns, zero_lo=False)
    weight, grad = torch.randn(20, 100), torch.randn(33, 20)
    close(sparse_linear(*x.args, weight, x.first), F.linear(x.dense, weight))
    close(sparse_linear_backward(*x.args, grad, x.first), grad.T @ x.dense)


def test_not_contiguous(columns):
    x = random_sparse(33, 100, 4, 0.3, columns, by_row=True)
    weight, grad = torch.randn(20, 100), torch.randn(33, 20)
    first = None if x.first is None else x.first.int()
    rows = (x.rowptr.int(), x.columns, strided(x.values), strided(x.lo), strided(x.scale), 4, 100)
    expected = sparse_linear(*x.args, weight, x.first)
    assert torch.equal(sparse_linear(*rows, strided(weight), first), expected)
    expected = sparse_linear_backward(*x.args, grad, x.first)
    assert torch.equal(sparse_linear_backward(*rows, strided(grad), first), expected)


def test_gradient_of_the_weight(columns):
    x = random_sparse(30, 50, 3, 0.2, columns, zero_lo=False)
    weight = torch.randn(7, 50, requires_grad=True)
    expected = torch.autograd.grad(F.linear(x.dense, weight).square().sum(), weight)[0]
    out = sparse_linear(*x.args, weight, x.first)
    close(torch.autograd.grad(out.square().sum(), weight)[0], expected)


def test_operations_are_whole(columns):
    x = random_sparse(9, 20, 3, 0.3, columns)
    weight = torch.randn(4, 20, requires_grad=True)
    # Made-up inputs of the tests for dynamic shapes have no valid pointers.
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(_sparse_linear, (*x.args, weight, x.first), test_utils=tests)
    grad = torch.randn(9, 4)
    torch.library.opcheck(_sparse_linear_backward, (*x.args, grad, x.first), test_utils=tests)


def test_threads_do_not_change_the_result(columns):
    x = random_sparse(2000, 1500, 4, 0.05, columns)
    weight, grad = torch.randn(40, 1500), torch.randn(2000, 40)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            out = sparse_linear(*x.args, weight, x.first)
            results.append((out, sparse_linear_backward(*x.args, grad, x.first)))
        finally:
            torch.set_num_threads(before)
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0])
        assert torch.equal(result[1], results[0][1])
    close(results[0][1], grad.T @ x.dense)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int32])
def test_a_column_out_of_range_is_named(dtype):
    x = random_sparse(5, 20, 1, 0.5, dtype, binary=True)
    columns = x.columns.clone()
    columns[3] = 20
    with pytest.raises(IndexError, match=r"columns\[3\]=20 is no column of 0 to 19"):
        sparse_linear(x.rowptr, columns, *x.args[2:], torch.randn(4, 20))


def test_gaps_that_lead_out_are_named():
    rowptr, columns = torch.tensor([0, 1, 3]), torch.tensor([19, GAP, 0], dtype=torch.uint8)
    rows = (rowptr, columns, None, torch.zeros(1), torch.ones(1), 1, 20)
    with pytest.raises(IndexError, match="gaps of row 1 lead beyond the 20"):
        sparse_linear(*rows, torch.randn(4, 20))
    with pytest.raises(IndexError, match="gaps of row 1 lead beyond the 20"):
        sparse_linear_backward(*rows, torch.randn(2, 4))


def test_pointers_that_fall_are_named():
    columns = torch.tensor([1, 2, 3], dtype=torch.int32)
    rows = (columns, None, torch.zeros(1), torch.ones(1), 1, 20, torch.randn(4, 20))
    with pytest.raises(ValueError, match=r"rowptr .* falls after row 1"):
        sparse_linear(torch.tensor([0, 2, 1, 3]), *rows)
    with pytest.raises(ValueError, match="rowptr runs from 0 to 2"):
        sparse_linear(torch.tensor([0, 1, 2]), *rows)


def test_a_wrong_weight_is_named():
    x = random_sparse(5, 20, 1, 0.5, binary=True)
    with pytest.raises(ValueError, match=r"weight must be torch.float32 of shape \(O, 20\)"):
        sparse_linear(*x.args, torch.randn(4, 21))
    with pytest.raises(ValueError, match=r"grad must be float32 of shape \(5, O\)"):
        sparse_linear_backward(*x.args, torch.randn(4, 4))
