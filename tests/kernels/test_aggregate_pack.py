import math

import pytest
import torch
import torch.nn.functional as F

from lit_gnncompress.kernels import Adjacency, aggregate, aggregate_pack, quantize_pack, unpack_bits
from lit_gnncompress.kernels.reference.aggregate_pack import aggregate_pack as reference

from .conftest import SIZES, random_edges, random_ranges, strided

WIDE = [size for size in SIZES if size[1] > 0]


def graph(rows, sorted_by_target=False):
    edges = random_edges(rows, rows, sorted_by_target=sorted_by_target)
    return edges, Adjacency(edges.rowptr, edges.col, edges.perm, rows)


def in_two_steps(x, adjacency, bits, weight, reduce, bias, residual, activation, lo, scale):
    """The same by operations that leave the rows as floats in between."""
    rows = aggregate(x, adjacency, weight, reduce)
    rows = rows if bias is None else rows + bias
    rows = rows if residual is None else rows + residual
    rows = {"none": lambda x: x, "relu": torch.relu, "elu": F.elu}[activation](rows)
    if lo is not None:
        return quantize_pack(rows, lo, scale, bits), torch.empty(0), torch.empty(0)
    lo = rows.amin(1)
    scale = (rows.amax(1) - lo) / (2**bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    return quantize_pack(rows, lo, scale, bits), lo, scale


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize(("rows", "width"), WIDE)
def test_is_two_steps_in_one(rows, width, reduce, bits, by_row):
    edges, adjacency = graph(rows)
    x, weight, bias = torch.randn(rows, width), torch.randn(edges.col.size(0)), torch.randn(width)
    residual = strided(torch.randn(rows, width))
    lo, scale = (None, None) if by_row else random_ranges(rows)
    for own_weight, *after in ((None, None, None, "relu"), (weight, bias, residual, "none")):
        others = own_weight, reduce, *after, lo, scale
        *found, finite = aggregate_pack(x, adjacency, bits, *others)
        for ours, expected in zip(found, in_two_steps(x, adjacency, bits, *others), strict=True):
            assert torch.equal(ours, expected)
        assert finite
        again = aggregate_pack(strided(x), adjacency, bits, *others)
        assert all(torch.equal(*pair) for pair in zip(found, again, strict=False))


@pytest.mark.parametrize("sorted_by_target", [True, False])
@pytest.mark.parametrize(("rows", "width"), WIDE)
def test_as_the_reference(rows, width, sorted_by_target, by_row):
    # Whole numbers, whose sums are the same in any order.
    edges, adjacency = graph(rows, sorted_by_target)
    x = torch.randint(-9, 10, (rows, width)).float()
    weight, bias = torch.randint(-3, 4, (edges.col.size(0),)).float(), torch.ones(width)
    lo, scale = (None, None) if by_row else (torch.tensor([-20.0]), torch.tensor([0.5]))
    for bits in (1, 3, 8):
        ours = aggregate_pack(x, adjacency, bits, weight, "sum", bias, x, "relu", lo, scale)
        others = weight, "sum", bias, x, "relu", bits, lo, scale
        expected = reference(x, *edges[:3], *others)
        assert all(torch.equal(*pair) for pair in zip(ours, expected, strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 20])
def test_rows_that_are_not_finite(value, column, by_row):
    _, adjacency = graph(33)
    lo, scale = (None, None) if by_row else random_ranges(33)
    x = torch.randn(33, 21)
    x[int(adjacency.col[0]), column] = value
    assert not aggregate_pack(x, adjacency, 4, lo=lo, scale=scale)[3]
    relu = aggregate_pack(x, adjacency, 4, activation="relu", lo=lo, scale=scale)[3]
    assert bool(relu) == (value == -math.inf)


def test_targets_without_edges():
    adjacency = Adjacency.from_edge_index(*torch.zeros(2, 0, dtype=torch.int64), 5, 3)
    bias = torch.tensor([-1.0, 0.0, 3.0])
    packed, lo, scale, finite = aggregate_pack(torch.randn(5, 3), adjacency, 2, bias=bias)
    assert unpack_bits(packed, 2, 3).tolist() == [[0, 1, 3]] * 3
    assert finite
    torch.testing.assert_close(torch.stack([lo, scale]), torch.tensor([[-1.0] * 3, [4 / 3] * 3]))
    packed, lo, scale, _ = aggregate_pack(torch.randn(5, 3), adjacency, 2)
    assert not packed.any()
    assert lo.tolist() == [0.0] * 3
    assert scale.tolist() == [1.0] * 3


def test_threads_change_nothing():
    _, adjacency = graph(4000)
    x = torch.randn(4000, 100)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = aggregate_pack(x, adjacency, 4)
        torch.set_num_threads(3)
        together = aggregate_pack(x, adjacency, 4)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(together, alone, strict=True))


@pytest.mark.parametrize("shared", [True, False])
def test_is_known_to_torch(shared):
    edges, _ = graph(6)
    ranges = (torch.zeros(1), torch.ones(1)) if shared else (None, None)
    after = torch.randn(4), torch.randn(6, 4), "relu"
    args = torch.randn(6, 4), *edges[:3], None, "sum", *after, 3, *ranges
    torch.library.opcheck(torch.ops.lit_gnncompress.aggregate_pack.default, args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 9}, "bits=9"),
        ({"reduce": "max"}, "reduce='max' is none of sum, mean"),
        ({"x": torch.zeros(6, 4).double()}, r"x must be float32 of shape \(6, F\)"),
        ({"x": torch.zeros(6, 0)}, r"x of shape \(6, 0\) has no columns"),
        ({"weight": torch.ones(3)}, "weight must be float32 of shape"),
        ({"weight": torch.ones(graph(6)[1].num_edges, 2)}, "it must be one for each edge"),
        ({"bias": torch.zeros(3)}, r"bias must be float32 of shape \(4,\)"),
        ({"bias": torch.zeros(4, device="meta")}, "bias is on meta, x is on cpu"),
        ({"residual": torch.zeros(5, 4)}, r"residual must be float32 of shape \(6, 4\)"),
        ({"residual": torch.zeros(6, 3)}, r"residual must be .*\(6, 4\), .* of shape \(6, 3\)"),
        ({"activation": "gelu"}, "activation='gelu' is none of none, relu, elu"),
        ({"lo": torch.zeros(1)}, "lo and scale belong together"),
        ({"lo": torch.zeros(6), "scale": torch.ones(1)}, r"lo must be float32 of shape \(1,\)"),
        ({"lo": torch.zeros(1), "scale": -torch.ones(1)}, r"scale\[0\]=-1.0: a range needs"),
    ],
)
def test_arguments_that_do_not_fit(change, message):
    args = {"x": torch.zeros(6, 4), "adjacency": graph(6)[1], "bits": 4} | change
    with pytest.raises(ValueError, match=message):
        aggregate_pack(**args)
