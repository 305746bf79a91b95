import pytest
import torch

from lit_gnncompress.kernels.packed_linear_int8 import (
    _packed_linear_int8,
    packed_linear_int8,
    quantize_weight,
)
from lit_gnncompress.kernels.reference import packed_linear_int8 as reference
from tests.kernels.conftest import SIZES, random_packed, strided


def close(result, expected):
    tolerance = 1e-5 * max(1.0, expected.abs().max().item() if expected.numel() else 1.0)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize(("rows", "width"), [*SIZES, (13, 2100)])
def test_equals_the_dense_product(rows, width, bits, by_row):
    x = random_packed(rows, width, bits, by_row)
    for outputs in (0, 1, 16, 33, 70):
        weight, scale = quantize_weight(torch.randn(outputs, width))
        result = packed_linear_int8(*x.args, weight, scale)
        assert result.shape == (rows, outputs)
        close(result, x.dense @ (weight * scale.unsqueeze(1)).T)
        close(result, reference.packed_linear_int8(*x.args, weight, scale))


def test_sums_of_the_largest_codes_do_not_overflow():
    width = (1 << 17) + 100
    packed = torch.full((2, -(-width // 16) * 16), 255, dtype=torch.uint8)
    weight = torch.full((3, width), -127, dtype=torch.int8)
    ones = torch.ones(1)
    result = packed_linear_int8(packed, 0 * ones, ones, 8, width, weight, torch.ones(3))
    torch.testing.assert_close(result, torch.full((2, 3), -255.0 * 127 * width))


def test_not_contiguous():
    x = random_packed(33, 100, 8, by_row=True)
    weight, scale = quantize_weight(torch.randn(20, 100))
    expected = packed_linear_int8(*x.args, weight, scale)
    arguments = (strided(x.packed), strided(x.lo), strided(x.scale), 8, 100)
    assert torch.equal(packed_linear_int8(*arguments, strided(weight), strided(scale)), expected)


def test_quantized_weight_is_near():
    weight = torch.randn(6, 50)
    weight[2] = 0
    codes, scale = quantize_weight(weight)
    assert codes.dtype == torch.int8
    assert codes.abs().amax(1).tolist() == [127, 127, 0, 127, 127, 127]
    error = (codes * scale.unsqueeze(1) - weight).abs()
    assert bool((error <= 0.5001 * scale.unsqueeze(1)).all())


def test_operation_is_whole():
    x = random_packed(9, 20, 4)
    torch.library.opcheck(_packed_linear_int8, (*x.args, *quantize_weight(torch.randn(4, 20))))


def test_wrong_weights_are_named():
    x = random_packed(5, 20, 4)
    weight, scale = quantize_weight(torch.randn(4, 20))
    with pytest.raises(ValueError, match=r"weight must be torch.int8 of shape \(O, 20\)"):
        packed_linear_int8(*x.args, weight.float(), scale)
    with pytest.raises(ValueError, match=r"weight_scale must be float32 of shape \(4,\)"):
        packed_linear_int8(*x.args, weight, scale[:3])
    with pytest.raises(ValueError, match="floating-point matrix"):
        quantize_weight(weight)
