import math

import pytest
import torch
import torch.nn.functional as F

from lit_gnncompress.kernels import activate_pack, quantize_pack, unpack_bits
from lit_gnncompress.kernels.reference.activate_pack import activate_pack as reference

from .conftest import SIZES, random_ranges, strided

WIDE = [size for size in SIZES if size[1] > 0]


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize(("rows", "width"), WIDE)
def test_is_the_reference_to_the_bit(rows, width, activation, bits, by_row):
    x, bias, residual = torch.randn(rows, width), torch.randn(width), torch.randn(rows, width)
    lo, scale = (None, None) if by_row else random_ranges(rows)
    for after in ((None, None), (bias, None), (bias, strided(residual)), (None, residual)):
        ours = activate_pack(x, bits, *after, activation, lo, scale)
        expected = reference(x, *after, activation, bits, lo, scale)
        assert all(torch.equal(*pair) for pair in zip(ours, expected, strict=True))
        again = activate_pack(strided(x), bits, *after, activation, lo, scale)
        assert all(torch.equal(*pair) for pair in zip(ours, again, strict=True))


@pytest.mark.parametrize(("rows", "width"), WIDE)
def test_elu_is_right_to_rounding(rows, width, bits, by_row):
    # Of all sizes, and around zero, where exp(x) - 1 would lose digits.
    x = torch.randn(rows, width) * 10.0 ** torch.randint(-6, 2, (rows, width))
    lo, scale = (None, None) if by_row else (torch.tensor([-1.0]), torch.tensor([1 / 50]))
    packed, *ends, finite = activate_pack(x, bits, activation="elu", lo=lo, scale=scale)
    expected = F.elu(x)
    assert finite
    if by_row:
        lo, scale = ends
        torch.testing.assert_close(lo, expected.amin(1), rtol=1e-6, atol=1e-9)
        spans = expected.amax(1) - expected.amin(1)
        spans = torch.where(spans > 0, spans / (2**bits - 1), 1.0)
        torch.testing.assert_close(scale, spans, rtol=1e-5, atol=1e-9)
    theirs = unpack_bits(quantize_pack(expected, lo, scale, bits), bits, width).int()
    codes = unpack_bits(packed, bits, width).int()
    apart = (codes - theirs).abs()  # where a number is in between two codes
    assert apart.sum() <= 0.02 * apart.numel()
    assert (apart <= 1).all()


def test_elu_of_numbers_far_out():
    x = torch.tensor([[-1e30, -200.0, -88.0, -1e-30, 0.0, 1e-30, 80.0]])
    _, lo, scale, finite = activate_pack(x, 8, activation="elu")
    assert finite
    assert lo.tolist() == [-1.0]
    torch.testing.assert_close(scale, torch.tensor([81 / 255]))


@pytest.mark.parametrize("activation", ["none", "relu", "elu"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 20])
def test_rows_that_are_not_finite(value, column, activation, by_row):
    lo, scale = (None, None) if by_row else random_ranges(33)
    x = torch.randn(33, 21)
    x[30, column] = value
    finite = activate_pack(x, 4, activation=activation, lo=lo, scale=scale)[3]
    assert bool(finite) == (value == -math.inf and activation != "none")


def test_threads_change_nothing():
    x, bias = torch.randn(20_000, 100), torch.randn(100)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = activate_pack(x, 4, bias, activation="elu")
        torch.set_num_threads(3)
        together = activate_pack(x, 4, bias, activation="elu")
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(together, alone, strict=True))


@pytest.mark.parametrize("shared", [True, False])
def test_is_known_to_torch(shared):
    ranges = (torch.zeros(1), torch.ones(1)) if shared else (None, None)
    args = torch.randn(6, 4), torch.randn(4), torch.randn(6, 4), "relu", 3, *ranges
    torch.library.opcheck(torch.ops.lit_gnncompress.activate_pack.default, args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 9}, "bits=9"),
        ({"x": torch.zeros(6, 4).double()}, r"x must be a float32 matrix .* torch.float64"),
        ({"x": torch.zeros(6, 0)}, r"with columns, got torch.float32 of shape \(6, 0\)"),
        ({"bias": torch.zeros(3)}, r"bias must be float32 of shape \(4,\), one for each column"),
        ({"bias": torch.zeros(4, device="meta")}, "bias is on meta, x is on cpu"),
        ({"residual": torch.zeros(5, 4)}, r"residual must be float32 of shape \(6, 4\), as large"),
        ({"activation": "gelu"}, "activation='gelu' is none of none, relu, elu"),
        ({"lo": torch.zeros(1)}, "lo and scale belong together"),
        ({"lo": torch.zeros(6), "scale": torch.ones(1)}, r"lo must be float32 of shape \(1,\)"),
        ({"lo": torch.zeros(1), "scale": -torch.ones(1)}, r"scale\[0\]=-1.0: a range needs"),
    ],
)
def test_arguments_that_do_not_fit(change, message):
    args = {"x": torch.zeros(6, 4), "bits": 4} | change
    with pytest.raises(ValueError, match=message):
        activate_pack(**args)
