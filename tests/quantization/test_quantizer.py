from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lit_gnncompress.quantization import DegreeBuckets, Quantizer
from lit_gnncompress.quantization.quantizer import Rounding
from lit_gnncompress.quantization.ranges import Granularity, RangeMethod, step

RANGES, GRANULARITIES, ROUNDINGS = map(get_args, (RangeMethod, Granularity, Rounding))
EVERY_QUANTIZER = [
    Quantizer(range, granularity, rounding)
    for range in RANGES
    for granularity in GRANULARITIES
    for rounding in ROUNDINGS
]
every_quantizer = pytest.mark.parametrize("quantizer", EVERY_QUANTIZER, ids=str)

values = st.floats(-100, 100, width=32)
matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=values)
matrices = matrices.map(torch.from_numpy)
few_bits = st.integers(1, 8)
some = settings(max_examples=40, deadline=None)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("offset", [0.0, -55.0])
@pytest.mark.parametrize(
    ("bits", "nearest", "floor"),
    [
        (1, (0, 1), (0, 0)),
        (2, (1, 2), (1, 2)),
        (3, (3, 5), (2, 4)),
        (4, (6, 11), (5, 10)),
        (5, (12, 22), (12, 21)),
        (6, (25, 44), (24, 44)),
        (7, (50, 90), (49, 89)),
        (8, (100, 180), (100, 180)),
    ],
)
def test_values_written_out_by_hand(bits, nearest, floor, offset):
    x = torch.tensor([[0.0, 100.0], [180.0, 255.0]]) + offset
    for rounding, (a, b) in (("nearest", nearest), ("floor", floor)):
        quantizer = Quantizer("minmax", "tensor", rounding)
        codes = torch.tensor([[0, a], [b, 2**bits - 1]])
        torch.testing.assert_close(quantizer(x, bits), codes * (255 / (2**bits - 1)) + offset)


@every_quantizer
def test_gradients_pass_as_if_nothing_had_happened(quantizer):
    buckets = DegreeBuckets(torch.tensor([0, 1, 2] * 4), 3)
    for bits in (1, 4, (8, 2, 32)):
        x, upstream = normal(12, 5).requires_grad_(), normal(12, 5, seed=1)
        quantizer(x, bits, buckets).backward(upstream)
        assert torch.equal(x.grad, upstream)


@every_quantizer
def test_zero_stays_zero_where_nothing_lies_beyond(quantizer):
    for seed, bits in enumerate(range(1, 9)):
        x = normal(9, 7, seed=seed).relu() / 3
        assert (quantizer(x, bits)[x == 0] == 0).all()
        # As the highest code, it is computed, not stored.
        assert (quantizer(-x, bits)[x == 0].abs() < 1e-6).all()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@given(x=matrices, bits=few_bits)
@some
def test_nearest_codes_are_at_most_half_a_step_away(granularity, x, bits):
    quantizer = Quantizer("minmax", granularity)
    range = quantizer.find_range(x, bits)
    bound = step(range.lo, range.hi, 2**bits - 1) / 2
    assert ((quantizer(x, bits) - x).abs() <= bound + 1e-4).all()


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@given(x=matrices, bits=few_bits)
@some
def test_what_is_quantized_stays_as_it_is(rounding, x, bits):
    quantizer = Quantizer("minmax", "tensor", rounding)
    once = quantizer(x, bits)
    torch.testing.assert_close(quantizer(once, bits), once, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@given(x=matrices, bits=st.integers(1, 4))
@some
def test_there_are_no_more_values_than_codes(rounding, x, bits):
    for range in RANGES:
        out = Quantizer(range, "tensor", rounding)(x, bits)
        assert len(out.unique()) <= 2**bits
        rows = Quantizer(range, "row", rounding)(x, bits)
        assert all(len(row.unique()) <= 2**bits for row in rows)


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@given(x=matrices, bits=few_bits)
@some
def test_order_is_kept(rounding, x, bits):
    for range in RANGES:
        out = Quantizer(range, "tensor", rounding)(x, bits).flatten()
        assert (out[x.flatten().argsort()].diff() >= 0).all()


@pytest.mark.parametrize("granularity", ["tensor", "bucket", "column", "row"])
@given(x=matrices, bits=few_bits)
@some
def test_the_mse_range_is_never_worse_than_minmax(granularity, x, bits):
    mse, minmax = (
        (Quantizer(range, granularity)(x, bits) - x).double().square().mean()
        for range in ("mse", "minmax")
    )
    assert mse <= minmax * (1 + 1e-4) + 1e-6


def test_row_normalised_binary_features_survive_one_bit():
    x = (normal(300, 50) > 1).float()
    x[3], x[4] = 0, 1
    x /= x.sum(1, keepdim=True).clamp(min=1)
    assert torch.equal(Quantizer()(x, 1), x)
    assert not torch.equal(Quantizer(granularity="tensor")(x, 1), x)


def test_stochastic_rounding_is_right_on_average():
    x = torch.linspace(-1, 2, 24).view(4, 6)
    quantizer = Quantizer("minmax", "tensor", "stochastic")
    torch.manual_seed(0)
    draws = torch.stack([quantizer(x, 2) for _ in range(2000)])
    deviation = 0.5 / 2000**0.5  # of a step of 1, at most
    torch.testing.assert_close(draws.mean(0), x, atol=4 * deviation, rtol=0)
    assert (draws.std(0) > 0).sum() > 12


@every_quantizer
def test_the_same_seed_gives_the_same_codes(quantizer):
    x, outs = normal(20, 6), []
    for _ in range(2):
        torch.manual_seed(7)
        outs.append(quantizer(x, 3))
    assert torch.equal(*outs)


@every_quantizer
def test_32_bits_of_a_bucket_leave_its_rows_alone(quantizer):
    x, index = normal(8, 5), torch.tensor([0, 3, 1, 3, 0, 1, 3, 0])  # bucket 2 is empty
    out = quantizer(x, (2, 32, 4, 3), DegreeBuckets(index, 4))
    assert torch.equal(out[index == 1], x[index == 1])
    assert (out[index != 1] != x[index != 1]).any(1).all()
    assert quantizer(x, 32) is x


@pytest.mark.parametrize("range", RANGES)
def test_buckets_have_bits_and_ranges_of_their_own(range):
    quantizer = Quantizer(range, "bucket")
    x, index = normal(60, 5), torch.arange(60) % 3
    x[index == 1] *= 100
    out = quantizer(x, (2, 4, 8), DegreeBuckets(index, 3))
    for bucket, bits in enumerate((2, 4, 8)):
        rows = index == bucket
        expected = Quantizer("minmax", "tensor")(x[rows], bits)
        if range == "minmax":
            torch.testing.assert_close(out[rows], expected)
        assert len(out[rows].unique()) <= 2**bits


@every_quantizer
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 4), (4, 1), (1, 1)])
def test_the_smallest_matrices(quantizer, shape):
    x = normal(*shape)
    out = quantizer(x, 2)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()


@every_quantizer
@pytest.mark.parametrize("value", [0.0, 3.0, -0.1, 1e-30, 1e30])
def test_constants_stay(quantizer, value):
    x = torch.full((5, 4), value)
    for bits in (1, 8, (1, 8)):
        buckets = DegreeBuckets(torch.tensor([0, 1, 0, 1, 1]), 2)
        assert torch.equal(quantizer(x, bits, buckets), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half, torch.double])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_any_precision_gives_the_same_codes(dtype, granularity):
    x = normal(30, 6).to(dtype)
    quantizer = Quantizer("minmax", granularity)
    out = quantizer(x, 3)
    assert out.dtype == dtype
    expected = quantizer(x.float(), 3).to(dtype)
    rounding = {torch.bfloat16: 2e-2, torch.half: 2e-3, torch.double: 1e-5}[dtype]
    torch.testing.assert_close(out, expected, atol=rounding, rtol=0)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_strides_do_not_matter(granularity):
    quantizer, wide = Quantizer(granularity=granularity), normal(12, 40)
    for x in (wide.t(), wide[::2, 1::3], wide[:, :1].expand(-1, 5)):
        before = x.clone()
        assert torch.equal(quantizer(x, 2), quantizer(x.contiguous(), 2))
        assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"range": "min_max"}, r"range='min_max' is none of mse, minmax, .*Did you mean 'minmax'"),
        ({"granularity": "node"}, r"granularity='node' is none of auto, tensor, bucket, column"),
        ({"rounding": "up"}, r"rounding='up' is none of nearest, floor, stochastic"),
        ({"percentile": 0.5}, r"percentile=0.5 must lie in \(0.5, 1\]"),
        ({"percentile": 99}, r"percentile=99 must lie in"),
    ],
)
def test_unknown_choices_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Quantizer(**arguments)


@pytest.mark.parametrize("bits", [0, 9, 33, -1, (4, 9), (16, 2)])
def test_bits_that_no_site_spends_are_refused(bits):
    buckets, wrong = DegreeBuckets(torch.tensor([0, 1, 1]), 2), bits
    if isinstance(bits, tuple):
        (wrong,) = (b for b in bits if b > 8)
    with pytest.raises(ValueError, match=rf"^bits={wrong}: bits are 1 to 8, or 32"):
        Quantizer()(normal(3, 2), bits, buckets)


def test_bits_by_bucket_need_the_buckets():
    x = normal(4, 3)
    for buckets, count in ((None, 1), (DegreeBuckets(torch.tensor([0, 1, 2, 0]), 3), 3)):
        message = rf"^bits=\(4, 8\) are 2 for {count} bucket\(s\): give the DegreeBuckets"
        with pytest.raises(ValueError, match=message):
            Quantizer()(x, (4, 8), buckets)
    # Where all buckets spend the same, nobody asks which row is in which.
    assert torch.equal(Quantizer()(x, (4, 4)), Quantizer()(x, 4))


@pytest.mark.parametrize("bits", [4, (4, 8)])
def test_doubles_are_computed_in_double_precision(bits):
    x = 1e6 + torch.linspace(0, 1, 12, dtype=torch.double).view(4, 3)
    buckets = DegreeBuckets(torch.tensor([0, 1, 0, 1]), 2)
    out = Quantizer("minmax", "tensor")(x, bits, buckets)
    assert (out - x).abs().max() <= 0.5 / 15 + 1e-9


@pytest.mark.parametrize("bits", [32, (32,), (32, 32)])
def test_full_precision_leaves_features_untouched(bits):
    x = torch.randn(5, 3)
    assert Quantizer()(x, bits) is x
