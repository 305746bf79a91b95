import pytest
import torch

from lit_gnncompress.kernels import Adjacency, aggregate, sparse_aggregate
from lit_gnncompress.kernels.reference.sparse_aggregate import sparse_aggregate as reference

from .conftest import SIZES, random_edges, random_sparse

REDUCTIONS = ["sum", "mean", "max"]


def graph(rows, sorted_by_target=False):
    edges = random_edges(rows, rows, sorted_by_target=sorted_by_target)
    return edges, Adjacency(edges.rowptr, edges.col, edges.perm, rows)


def weights(edges, heads):
    if heads == 0:
        return None
    weight = torch.randn(edges.col.size(0), heads, generator=torch.Generator().manual_seed(3))
    return weight[:, 0] if heads == 1 else weight


@pytest.mark.parametrize("columns", [torch.uint8, torch.uint16, torch.int32])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_equals_reference(rows, width, reduce, binary, columns):
    edges, adjacency = graph(rows)
    for by_row in (False, True):
        x = random_sparse(rows, width, 3, 0.3, columns, binary, by_row, zero_lo=not by_row)
        for heads in (0, 1, width):
            weight = weights(edges, heads)
            out = sparse_aggregate(*x.args, adjacency, weight, reduce, x.first)
            expected = reference(*x.args, x.first, *edges[:3], weight, reduce)
            if reduce == "max":
                assert torch.equal(out, expected)
            else:
                torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_all_bits_and_long_gaps(bits):
    _, adjacency = graph(20)
    for columns in (torch.uint8, torch.uint16):
        x = random_sparse(20, 3000, bits, 0.002, columns, zero_lo=False)
        out = sparse_aggregate(*x.args, adjacency, first=x.first)
        torch.testing.assert_close(out, aggregate(x.dense, adjacency), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradient_is_that_of_dense_rows(reduce, heads):
    edges, adjacency = graph(30)
    x, weight = random_sparse(30, 20, 2, 0.4, torch.uint8), weights(edges, heads)
    grad = torch.randn(30, 20)
    ours, dense = (weight.clone().requires_grad_() for _ in range(2))
    sparse_aggregate(*x.args, adjacency, ours, reduce, x.first).backward(grad)
    aggregate(x.dense, adjacency, dense, reduce).backward(grad)
    torch.testing.assert_close(ours.grad, dense.grad, rtol=1e-4, atol=1e-4)


def test_is_known_to_torch():
    edges, _ = graph(6)
    x, weight = random_sparse(6, 4, 3, 0.5), weights(edges, 2).requires_grad_()
    op = torch.ops.lit_gnncompress.sparse_aggregate.default
    torch.library.opcheck(op, (*x.args, x.first, *edges[:3], weight, "mean"))


def test_arguments_that_do_not_fit():
    _, adjacency = graph(6)
    x = random_sparse(6, 4, 3, 0.5)
    with pytest.raises(ValueError, match="reduce='min'"):
        sparse_aggregate(*x.args, adjacency, reduce="min")
    with pytest.raises(ValueError, match="columns stores 6 rows"):
        sparse_aggregate(*x.args, graph(5)[1])
    with pytest.raises(ValueError, match="weight must be float32 of shape"):
        sparse_aggregate(*x.args, adjacency, torch.ones(3))
