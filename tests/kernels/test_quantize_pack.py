import math

import numpy as np
import pytest
import torch

from lit_gnncompress.kernels import pack_bits, quantize_pack, unpack_bits
from lit_gnncompress.kernels.cpu import quantize_pack as cpu
from lit_gnncompress.kernels.layout import row_bytes
from lit_gnncompress.kernels.reference.quantize_pack import quantize_pack as reference
from lit_gnncompress.kernels.reference.quantize_pack import uniform
from tests.kernels.conftest import SIZES, random_ranges, strided

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
ZERO, ONE = torch.zeros(1), torch.ones(1)


def codes_of(x, lo, scale, bits, seed=None):
    return unpack_bits(quantize_pack(x, lo, scale, bits, seed), bits, x.size(1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_as_the_reference(size, dtype, bits, by_row):
    x = torch.randn(size, generator=torch.Generator().manual_seed(bits)).to(dtype)
    lo, scale = random_ranges(size[0], by_row)
    for seed in (None, 0, 2**40 + 5):
        expected = reference(x, lo, scale, bits, -1 if seed is None else seed)
        assert torch.equal(quantize_pack(x, lo, scale, bits, seed), expected)


def test_codes_are_those_of_torch(bits):
    x = torch.rand(50, 77) * 3 - 1
    lo, scale = x.amin(1), (x.amax(1) - x.amin(1)) / (2**bits - 1)
    codes = x.sub(lo[:, None]).div(scale[:, None]).round().clamp(0, 2**bits - 1)
    assert torch.equal(quantize_pack(x, lo, scale, bits), pack_bits(codes.to(torch.uint8), bits))


def test_halves_go_to_the_even_code():
    x = torch.tensor([[0.5, 1.5, 2.5, 3.5]])
    assert codes_of(x, ZERO, ONE, 4).tolist() == [[0, 2, 2, 4]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", [None, 3])
def test_what_has_no_place_in_the_range(dtype, seed):
    x = torch.tensor([[math.nan, math.inf, -math.inf, -5.0, 100.0, 2.0]], dtype=dtype)
    assert codes_of(x, ZERO, ONE, 3, seed).tolist() == [[0, 7, 0, 0, 7, 2]]
    assert codes_of(x, ZERO, ZERO, 3, seed).tolist() == [[0] * 6]  # a range that is a point


def test_codes_that_fill_up_a_row_are_zero():
    packed = quantize_pack(torch.ones(1, 3), torch.tensor([-5.0]), ONE, 8)
    assert packed.tolist() == [[6] * 3 + [0] * 13]


def test_stochastic_rounding_is_right_on_average():
    x = torch.full((400, 250), 2.3)
    codes = codes_of(x, ZERO, ONE, 3, seed=11)
    assert set(codes.unique().tolist()) == {2, 3}
    assert abs(float(codes.float().mean()) - 2.3) < 4 * math.sqrt(0.21 / x.numel())
    assert not torch.equal(codes, codes_of(x, ZERO, ONE, 3, seed=12))


def test_stochastic_rounding_leaves_exact_codes_alone():
    x = torch.randint(0, 256, (300, 333)).float()
    assert torch.equal(codes_of(x, ZERO, ONE, 8, seed=1).float(), x)


@pytest.mark.parametrize("overflow", [1, 2])
def test_places_beyond_32_bits(overflow):
    # Rows around the place where the lower half overflows, without the memory before them.
    width, seed = 1000, 2**33 + 5
    row = overflow * 2**32 // width
    x = torch.full((2, width), 0.5)
    packed = torch.zeros(2, row_bytes(width, 1), dtype=torch.uint8)
    target, source = packed.data_ptr() - row * packed.size(1), x.data_ptr() - row * 4 * width
    one = np.ones(1, np.float32)
    cpu._rows(
        row, row + 2, target, packed.size(1), source, 4 * width, width, 1, 0, 0 * one, one, seed
    )
    place = torch.arange(row * width, (row + 2) * width).view_as(x)
    expected = (uniform(place, seed) < 0.5).to(torch.uint8)
    assert torch.equal(unpack_bits(packed, 1, width), expected)
    assert 0.4 < float(expected.float().mean()) < 0.6


def test_rows_that_are_not_contiguous(bits):
    x = torch.randn(20, 50)
    for other in (strided(x), x.t().contiguous().t(), x[3:, 5:30], x[::2]):
        assert torch.equal(
            quantize_pack(other, -ONE, ONE / 9, bits), reference(other, -ONE, ONE / 9, bits, -1)
        )


def test_on_several_threads():
    x = torch.rand(3000, 1001)
    one = quantize_pack(x, ZERO, ONE / 15, 4, seed=9)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(quantize_pack(x, ZERO, ONE / 15, 4, seed=9), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("seed", [-1, 4])
def test_torch_knows_the_operation(seed):
    args = torch.rand(4, 20), torch.zeros(4), torch.ones(1), 3, seed
    torch.library.opcheck(torch.ops.lit_gnncompress.quantize_pack.default, args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 9}, "bits=9"),
        ({"x": torch.zeros(3, dtype=torch.float32)}, "x must be a matrix"),
        ({"x": torch.zeros(3, 2, dtype=torch.int32)}, "x must be a matrix"),
        ({"lo": torch.zeros(2)}, r"lo must be float32 of shape \(1,\) or \(3,\)"),
        ({"scale": torch.ones(1).double()}, "scale must be float32"),
        ({"scale": torch.tensor([1.0, -2.0, 1.0])}, r"scale\[1\]=-2.0: a range needs max >= min"),
        ({"scale": torch.tensor([math.nan])}, r"scale\[0\]=nan"),
        ({"scale": torch.ones(1, device="meta")}, "scale is on meta, the rows are on cpu"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_what_cannot_be_quantized(change, message):
    args = {"x": torch.zeros(3, 2), "lo": ZERO, "scale": ONE, "bits": 4} | change
    with pytest.raises(ValueError, match=message):
        quantize_pack(**args)
