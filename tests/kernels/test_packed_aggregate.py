import pytest
import torch

from lit_gnncompress.kernels import Adjacency, aggregate, packed_aggregate
from lit_gnncompress.kernels.reference.packed_aggregate import packed_aggregate as reference

from .conftest import SIZES, random_edges, random_packed, strided

REDUCTIONS = ["sum", "mean", "max"]


def graph(rows, sorted_by_target=False):
    edges = random_edges(rows, rows, sorted_by_target=sorted_by_target)
    return edges, Adjacency(edges.rowptr, edges.col, edges.perm, rows)


def weights(edges, heads):
    if heads == 0:
        return None
    weight = torch.randn(edges.col.size(0), heads, generator=torch.Generator().manual_seed(3))
    return weight[:, 0] if heads == 1 else weight


def check(rows, width, bits, by_row, reduce, heads):
    edges, adjacency = graph(rows, sorted_by_target=by_row)
    x, weight = random_packed(rows, width, bits, by_row), weights(edges, heads)
    out = packed_aggregate(*x.args, adjacency, weight, reduce)
    expected = reference(*x.args, *edges[:3], weight, reduce)
    if reduce == "max":  # what is equal to it gets its gradient
        assert torch.equal(out, expected)
    else:
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("heads", [0, 1])
def test_all_bits(bits, by_row, reduce, heads):
    check(33, 100, bits, by_row, reduce, heads)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_all_sizes(rows, width, reduce):
    for heads in (0, 1):
        check(rows, width, 4, False, reduce, heads)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [16, 32, 48, 64, 80, 112, 128, 240, 256, 272])
def test_every_column_is_in_its_place(width, bits):
    edges, adjacency = graph(20)
    x = random_packed(20, width, bits)._replace(lo=torch.zeros(1), scale=torch.ones(1))
    out = packed_aggregate(*x.args, adjacency)
    expected = torch.zeros(20, width).index_add_(0, edges.row, x.codes[edges.col.long()].float())
    assert torch.equal(out, expected)  # sums of codes are exact


def test_a_weight_for_each_head_at_all_bits(bits, by_row):
    check(40, 32, bits, by_row, "sum", heads=4)


@pytest.mark.parametrize("channels", [1, 3, 8, 16, 24, 32, 64])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_heads_of_all_sizes(channels, reduce):
    check(40, 4 * channels, 4, False, reduce, heads=4)


def test_one_lo_and_a_scale_for_each_row():
    _, adjacency = graph(20)
    x = random_packed(20, 33, 4, by_row=True)
    x = x._replace(lo=torch.tensor([0.5]))
    out = packed_aggregate(*x.args, adjacency)
    torch.testing.assert_close(out, aggregate(x.dense, adjacency), rtol=1e-4, atol=1e-3)


def test_rows_that_are_not_contiguous():
    _, adjacency = graph(20)
    x = random_packed(20, 33, 4, by_row=True)
    args = (*map(strided, (x.packed, x.lo, x.scale)), 4, 33)
    weight = torch.randn(adjacency.num_edges)
    out = packed_aggregate(*args, adjacency, strided(weight))
    assert torch.equal(out, packed_aggregate(*x.args, adjacency, weight))


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradient_is_that_of_dense_rows(reduce, heads, by_row):
    edges, adjacency = graph(30)
    x, weight = random_packed(30, 20, 2, by_row), weights(edges, heads)
    grad = torch.randn(30, 20)
    ours, dense = (weight.clone().requires_grad_() for _ in range(2))
    packed_aggregate(*x.args, adjacency, ours, reduce).backward(grad)
    aggregate(x.dense, adjacency, dense, reduce).backward(grad)
    torch.testing.assert_close(ours.grad, dense.grad, rtol=1e-4, atol=1e-4)


def test_threads_change_nothing():
    _, adjacency = graph(4000)
    x = random_packed(4000, 100, 4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = packed_aggregate(*x.args, adjacency)
        torch.set_num_threads(3)
        assert torch.equal(packed_aggregate(*x.args, adjacency), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_is_known_to_torch(reduce):
    edges, _ = graph(6)
    x, weight = random_packed(6, 4, 3), weights(edges, 2).requires_grad_()
    op = torch.ops.lit_gnncompress.packed_aggregate.default
    torch.library.opcheck(op, (*x.args, *edges[:3], weight, reduce))


def test_compiles():
    _, adjacency = graph(6)
    x = random_packed(6, 4, 3)

    def run(packed):
        return packed_aggregate(packed, *x.args[1:], adjacency) * 2

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x.packed), run(x.packed))


def test_arguments_that_do_not_fit():
    _, adjacency = graph(6)
    x = random_packed(6, 4, 3)
    with pytest.raises(ValueError, match="bits=9"):
        packed_aggregate(*x.args[:3], 9, 4, adjacency)
    with pytest.raises(ValueError, match="reduce='min'"):
        packed_aggregate(*x.args, adjacency, reduce="min")
    with pytest.raises(ValueError, match="packed stores 5 rows"):
        packed_aggregate(x.packed[:5], *x.args[1:], adjacency)
    with pytest.raises(ValueError, match="scale must be float32"):
        packed_aggregate(x.packed, x.lo, x.scale.double(), 3, 4, adjacency)
    with pytest.raises(ValueError, match="weight must be float32 of shape"):
        packed_aggregate(*x.args, adjacency, torch.ones(3))
    with pytest.raises(ValueError, match="packed is on meta, the edges are on cpu"):
        packed_aggregate(*(each.to("meta") for each in x.args[:3]), 3, 4, adjacency)
