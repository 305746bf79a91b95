import importlib
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from lit_gnncompress.kernels.packed_linear import _packed_linear, packed_linear
from lit_gnncompress.kernels.packed_linear_backward import (
    _packed_linear_backward,
    packed_linear_backward,
)
from lit_gnncompress.kernels.reference import packed_linear as reference
from lit_gnncompress.kernels.reference import packed_linear_backward as reference_backward
from tests.kernels.conftest import SIZES, random_packed, random_ranges, strided

OUTPUTS = [1, 16, 33, 70]


def close(result, expected):
    tolerance = 1e-5 * max(1.0, expected.abs().max().item() if expected.numel() else 1.0)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize(("rows", "width"), [*SIZES, (600, 40), (13, 2100)])
def test_equals_the_dense_product(rows, width, bits, by_row):
    x = random_packed(rows, width, bits, by_row)
    for outputs in OUTPUTS:
        weight, grad = torch.randn(outputs, width), torch.randn(rows, outputs)
        result = packed_linear(*x.args, weight)
        assert result.shape == (rows, outputs)
        close(result, F.linear(x.dense, weight))
        close(result, reference.packed_linear(*x.args, weight))
        result = packed_linear_backward(*x.args, grad)
        assert result.shape == (outputs, width)
        close(result, grad.T @ x.dense)
        close(result, reference_backward.packed_linear_backward(*x.args, grad))


def test_no_outputs():
    x = random_packed(5, 20, 4)
    assert packed_linear(*x.args, torch.empty(0, 20)).shape == (5, 0)
    assert packed_linear_backward(*x.args, torch.empty(5, 0)).shape == (0, 20)


def test_not_contiguous(bits):
    x = random_packed(33, 100, bits, by_row=True)
    weight, grad = torch.randn(20, 100), torch.randn(33, 20)
    ranges = [strided(x.lo), strided(x.scale)]
    result = packed_linear(strided(x.packed), *ranges, bits, 100, strided(weight))
    assert torch.equal(result, packed_linear(*x.args, weight))
    result = packed_linear(*x.args, weight.T.contiguous().T)
    assert torch.equal(result, packed_linear(*x.args, weight))
    result = packed_linear_backward(strided(x.packed), *ranges, bits, 100, strided(grad))
    assert torch.equal(result, packed_linear_backward(*x.args, grad))
    summed = torch.ones(1, 20).expand(33, 20)  # the gradient of a sum
    close(packed_linear_backward(*x.args, summed), summed.T @ x.dense)


def test_gradient_of_the_weight(by_row):
    x = random_packed(30, 50, 3, by_row)
    weight = torch.randn(7, 50, requires_grad=True)
    expected = torch.autograd.grad(F.linear(x.dense, weight).square().sum(), weight)[0]
    close(torch.autograd.grad(packed_linear(*x.args, weight).square().sum(), weight)[0], expected)


def test_operations_are_whole(bits):
    x = random_packed(9, 20, bits)
    weight = torch.randn(4, 20, requires_grad=True)
    torch.library.opcheck(_packed_linear, (*x.args, weight))
    torch.library.opcheck(_packed_linear_backward, (*x.args, torch.randn(9, 4)))


def test_compiles():
    x = random_packed(9, 20, 2)
    weight = torch.randn(4, 20)
    compiled = torch.compile(lambda w: packed_linear(*x.args, w).relu(), backend="aot_eager")
    close(compiled(weight), F.linear(x.dense, weight).relu())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_threads_do_not_change_the_result(bits):
    x = random_packed(5000, 300, bits, by_row=True)
    weight, grad = torch.randn(40, 300), torch.randn(5000, 40)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append((packed_linear(*x.args, weight), packed_linear_backward(*x.args, grad)))
        finally:
            torch.set_num_threads(before)
    for out, grad_weight in results[1:]:
        assert torch.equal(out, results[0][0])
        # The sum over rows of `lo` is torch's own.
        torch.testing.assert_close(grad_weight, results[0][1], rtol=1e-5, atol=1e-4)


def test_a_cpu_without_long_vectors_gives_the_same(tmp_path):
    code = """
import torch
from tests.kernels.conftest import random_packed
from lit_gnncompress.kernels.packed_linear import packed_linear
from lit_gnncompress.kernels.packed_linear_int8 import packed_linear_int8, quantize_weight
for bits in (1, 5):
    x, weight = random_packed(20, 70, bits), torch.randn(20, 70)
    expected = x.dense @ weight.T
    torch.testing.assert_close(packed_linear(*x.args, weight), expected, atol=1e-3, rtol=1e-4)
    codes, scale = quantize_weight(weight)
    expected = x.dense @ (codes * scale.unsqueeze(1)).T
    result = packed_linear_int8(*x.args, codes, scale)
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=1e-4)
"""
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_a_wrong_weight_is_named():
    x = random_packed(5, 20, 4)
    with pytest.raises(ValueError, match=r"weight must be torch.float32 of shape \(O, 20\)"):
        packed_linear(*x.args, torch.randn(4, 21))
    with pytest.raises(ValueError, match=r"got torch\.float64"):
        packed_linear(*x.args, torch.randn(4, 20).double())
    with pytest.raises(ValueError, match="weight is on meta"):
        packed_linear(*x.args, torch.empty(4, 20, device="meta"))
    with pytest.raises(ValueError, match="grad must be float32"):
        packed_linear_backward(*x.args, torch.randn(6, 4))


def test_wrong_rows_are_named():
    x, weight = random_packed(5, 20, 4), torch.randn(4, 20)
    with pytest.raises(ValueError, match="bits=9"):
        packed_linear(x.packed, x.lo, x.scale, 9, 20, weight)
    with pytest.raises(ValueError, match="rows of 16 bytes"):
        packed_linear(x.packed, x.lo, x.scale, 4, 40, torch.randn(4, 40))
    lo, scale = random_ranges(4, by_row=True)
    with pytest.raises(ValueError, match="lo must be float32"):
        packed_linear(x.packed, lo, scale, 4, 20, weight)


@pytest.mark.parametrize("name", ["packed_linear", "packed_linear_backward"])
def test_compiled_code_is_found_again(name):
    packed_linear(*random_packed(9, 20, 2).args, torch.randn(4, 20))
    packed_linear(*random_packed(9, 20, 4).args, torch.randn(4, 20))
    packed_linear_backward(*random_packed(9, 20, 2).args, torch.randn(9, 4))
    module = importlib.import_module(f"lit_gnncompress.kernels.cpu.{name}")
    for value in vars(module).values():
        if hasattr(value, "stats"):
            assert value.stats.cache_path
