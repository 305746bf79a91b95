import importlib
import math
import os
import subprocess
import sys

import pytest
import torch

from lit_gnncompress.kernels import tt_lookup, tt_table
from lit_gnncompress.kernels.reference import tt_lookup as reference
from lit_gnncompress.kernels.reference import tt_lookup_backward as reference_backward
from lit_gnncompress.kernels.tt_lookup import _tt_lookup
from lit_gnncompress.kernels.tt_lookup_backward import _tt_lookup_backward
from tests.kernels.conftest import random_cores, strided

TRAINS = {
    "two": ((7, 9), (3, 5), (4,)),
    "two, whole vectors": ((30, 40), (5, 16), (16,)),
    "three": ((3, 4, 5), (2, 3, 2), (2, 3)),
    "three, whole vectors": ((9, 8, 7), (4, 4, 4), (16, 16)),
    "three, wide": ((7, 6, 5), (3, 5, 4), (9, 20)),
    "three, rank 1": ((4, 5, 6), (3, 2, 2), (1, 1)),
    "four": ((3, 2, 4, 2), (2, 1, 3, 2), (2, 3, 4)),
    "four, few of the pairs": ((50, 60, 70, 80), (2, 2, 2, 2), (3, 4, 5)),
}
ORDERS = ["none", "one", "random", "sorted", "same", "zipf"]


@pytest.fixture(params=TRAINS, ids=TRAINS)
def train(request):
    return TRAINS[request.param]


def indices_of(rows, order, count=3000):
    capacity = math.prod(rows)
    if order in ("none", "one"):
        return torch.randint(0, capacity, (int(order == "one"),))
    if order == "same":
        return torch.full((count,), capacity - 1)
    if order == "zipf":
        weight = torch.arange(1, min(capacity, 1000) + 1) ** -1.2
        return torch.multinomial(weight, count, replacement=True)
    indices = torch.randint(0, capacity, (count,))
    return indices.sort()[0] if order == "sorted" else indices


def close(result, expected):
    assert result.dtype == expected.dtype
    tolerance = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float64: 1e-12}
    relative = tolerance.get(result.dtype, 1e-5)
    largest = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(result, expected, rtol=relative, atol=relative * largest)


def gradients(indices, cores, grad):
    """Through autograd."""
    cores = [core.detach().requires_grad_() for core in cores]
    return torch.autograd.grad(tt_lookup(indices, cores), cores, grad)


@pytest.mark.parametrize("order", ORDERS)
def test_equals_the_reference(train, order):
    rows, columns, ranks = train
    cores, indices = random_cores(rows, columns, ranks), indices_of(rows, order)
    out, *places = _tt_lookup(indices, cores, True)
    expected, *expected_places = reference.tt_lookup(indices, cores, True)
    assert out.shape == (len(indices), math.prod(columns))
    close(out, expected)
    for found, place in zip(places, expected_places, strict=True):
        assert torch.equal(found, place)
    grad = torch.randn_like(out)
    found = _tt_lookup_backward(grad, cores, *places)
    for one, other in zip(
        found, reference_backward.tt_lookup_backward(grad, cores, *places), strict=True
    ):
        close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(train, dtype):
    rows, columns, ranks = train
    cores, indices = random_cores(rows, columns, ranks, dtype), indices_of(rows, "random", 40)
    exact = [core.double() for core in cores]
    out, grad = tt_lookup(indices, cores), torch.randn(40, math.prod(columns)).to(dtype)
    close(out, reference.tt_lookup(indices, exact, False)[0].to(dtype))
    expected = gradients(indices, exact, grad.double())
    for one, other in zip(gradients(indices, cores, grad), expected, strict=True):
        close(one, other.to(dtype))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (12,), (3, 4), (2, 1, 6)])
def test_indices_of_any_shape(shape, dtype):
    cores = random_cores(*TRAINS["three"])
    indices = torch.randint(0, 60, shape, dtype=dtype)
    close(tt_lookup(indices, cores), tt_table(cores)[indices.long()])


def test_not_contiguous(train):
    rows, columns, ranks = train
    cores, indices = random_cores(rows, columns, ranks), indices_of(rows, "random", 30)
    grad = torch.randn(30, math.prod(columns))
    spread = [strided(core.transpose(0, 2)).transpose(0, 2) for core in cores]
    assert torch.equal(tt_lookup(strided(indices), spread), tt_lookup(indices, cores))
    expected = gradients(indices, cores, grad)
    for one, other in zip(
        gradients(strided(indices), spread, strided(grad)), expected, strict=True
    ):
        assert torch.equal(one, other)
    summed = torch.ones(1, 1).expand(30, math.prod(columns))  # the gradient of a sum
    expected = gradients(indices, cores, summed.contiguous())
    for one, other in zip(gradients(indices, cores, summed), expected, strict=True):
        assert torch.equal(one, other)


def test_gradcheck(train):
    rows, columns, ranks = ((2, 3, 2, 2)[: len(train[0])], train[1], train[2])
    cores = random_cores(rows, columns, ranks, torch.float64)
    indices = torch.tensor([[0, 3, 3], [1, 5, 0]])
    cores = [core.requires_grad_() for core in cores]
    assert torch.autograd.gradcheck(lambda *cores: tt_lookup(indices, cores), cores, fast_mode=True)


def test_gradients_of_some_cores_only():
    cores = random_cores(*TRAINS["three"])
    indices = indices_of((3, 4, 5), "random", 20)
    everything = gradients(indices, cores, torch.ones(20, 12))
    cores[1].requires_grad_()
    tt_lookup(indices, cores).sum().backward()
    assert cores[0].grad is None
    assert torch.equal(cores[1].grad, everything[1])


def test_every_row_of_a_core_that_is_touched_gets_its_gradient():
    rows = (200, 220, 250)
    cores = random_cores(rows, (4, 4, 4), (4, 4))
    indices = torch.randint(0, math.prod(rows), (10_240,))
    found = gradients(indices, cores, torch.ones(10_240, 64))
    digits = indices // (220 * 250), indices // 250 % 220, indices % 250
    for grad, digit in zip(found, digits, strict=True):
        touched = grad.flatten(1).abs().sum(1).nonzero()[:, 0]
        assert torch.equal(touched, digit.unique())


def test_row_numbers_above_2_to_the_24_are_exact():
    rows = (3000, 2000, 1000)
    cores = random_cores(rows, (1, 2, 2), (2, 2))
    indices = torch.tensor([2**24, 2**24 + 1, 2**31 + 5, 2**32 + 1, 6 * 10**9 - 1])
    for index, row in zip(indices.tolist(), tt_lookup(indices, cores), strict=True):
        slices = [cores[0][index // 2_000_000], cores[1][index // 1000 % 2000]]
        expected = torch.einsum("xas,sbt,tcy->abc", *slices, cores[2][index % 1000])
        close(row, expected.flatten())


@pytest.mark.parametrize("name", ["two, whole vectors", "three, whole vectors", "four"])
def test_the_same_bits_every_time_for_any_number_of_threads(name):
    rows, columns, ranks = TRAINS[name]
    count = 40_000
    cores, indices = random_cores(rows, columns, ranks), indices_of(rows, "zipf", count)
    grad = torch.randn(count, math.prod(columns))
    before, results = torch.get_num_threads(), []
    for run in range(20):
        torch.set_num_threads(1 + run % 3)
        try:
            results.append([tt_lookup(indices, cores), *gradients(indices, cores, grad)])
        finally:
            torch.set_num_threads(before)
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            assert torch.equal(one, other)


def test_backward_keeps_indices_and_their_order_alone():
    cores = [core.requires_grad_() for core in random_cores((100,) * 3, (4,) * 3, (16, 16))]
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tt_lookup(torch.randint(0, 10**6, (5000,)), cores)
    for core in cores:
        del kept[core.untyped_storage().data_ptr()]
    assert sum(kept.values()) == 12 * 5000


def test_nothing_is_kept_without_gradients():
    cores = random_cores(*TRAINS["three"])
    out, *order = _tt_lookup(torch.arange(60), cores, False)
    close(out, tt_table(cores))
    assert [place.numel() for place in order] == [0, 0, 0]


def test_a_second_derivative_is_refused():
    cores = [core.requires_grad_() for core in random_cores(*TRAINS["three"])]
    out = tt_lookup(torch.arange(5), cores)
    grads = torch.autograd.grad(out.square().sum(), cores, create_graph=True)
    with pytest.raises(NotImplementedError, match="tt_lookup can be differentiated once"):
        grads[0].sum().backward()


def test_operations_are_whole(train):
    rows, columns, ranks = train
    cores, indices = random_cores(rows, columns, ranks), indices_of(rows, "random", 9).view(3, 3)
    order = _tt_lookup(indices, cores, True)[1:]
    learned = [core.clone().requires_grad_() for core in cores]
    for keep in (True, False):
        torch.library.opcheck(_tt_lookup, (indices, learned if keep else cores, keep))
    grad = torch.randn(3, 3, math.prod(columns))
    torch.library.opcheck(_tt_lookup_backward, (grad, cores, *order))


def test_compiles():
    cores = [core.requires_grad_() for core in random_cores(*TRAINS["three"])]
    compiled = torch.compile(
        lambda indices, *cores: tt_lookup(indices, cores).relu(),
        backend="aot_eager",
        fullgraph=True,
    )
    for count in (7, 11):
        indices = torch.randint(0, 60, (count,))
        expected = tt_lookup(indices, cores).relu()
        found = compiled(indices, *cores)
        close(found, expected)
        for one, other in zip(
            torch.autograd.grad(found.sum(), cores),
            torch.autograd.grad(expected.sum(), cores),
            strict=True,
        ):
            assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_changes_nothing(dtype):
    cores = random_cores(*TRAINS["three"], dtype)
    indices = torch.arange(60)
    expected = tt_lookup(indices, cores), gradients(indices, cores, torch.ones(60, 12, dtype=dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = (
            tt_lookup(indices, cores),
            gradients(indices, cores, torch.ones(60, 12, dtype=dtype)),
        )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_cpu_without_long_vectors_gives_the_same(tmp_path):
    code = """
import torch
from tests.kernels.conftest import random_cores
from lit_gnncompress.kernels import tt_lookup, tt_table
cores = [core.requires_grad_() for core in random_cores((3, 4, 5), (2, 3, 2), (2, 3))]
rows, table = tt_lookup(torch.arange(60), cores), tt_table(cores)
torch.testing.assert_close(rows, table)
found, expected = (torch.autograd.grad(x.square().sum(), cores) for x in (rows, table))
torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
"""
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("order", [True, False], ids=["kept", "not kept"])
def test_an_index_out_of_range_is_named(order):
    cores = random_cores(*TRAINS["three"])
    with torch.set_grad_enabled(order):
        with pytest.raises(IndexError, match=r"indices\[1, 2\]=60 .* the cores have 60 rows"):
            tt_lookup(torch.tensor([[0, 1, 2], [3, 59, 60]])[:, [0, 1, 2]], cores)
        with pytest.raises(IndexError, match=r"indices\[1\]=-1 is out of range"):
            tt_lookup(torch.tensor([0, -1, 60], dtype=torch.int32), cores)
        with pytest.raises(IndexError, match=r"indices\[0\]=60 is out of range"):
            tt_lookup(torch.tensor([60]), [core.double() for core in cores])


def changed(number, core):
    cores = random_cores(*TRAINS["three"])
    cores[number] = core
    return cores


@pytest.mark.parametrize(
    ("cores", "message"),
    [
        (random_cores((60,), (12,), ()), "2, 3 or 4 cores, got 1"),
        (random_cores((2,) * 5, (2,) * 5, (1,) * 4), "2, 3 or 4 cores, got 5"),
        (changed(1, torch.ones(4, 2, 9)), r"cores\[1\] must have the shape .* got \(4, 2, 9\)"),
        (changed(1, torch.ones(4, 2, 0, 3)), r"cores\[1\] must have the shape"),
        (
            changed(1, torch.ones(4, 5, 3, 3)),
            r"rank 5, but cores\[0\] ends with rank 2",
        ),
        (changed(0, torch.ones(3, 2, 2, 2)), r"begins with rank 2, but the first rank is 1"),
        (
            changed(2, torch.ones(5, 3, 2, 4)),
            r"must end with rank 1, cores\[2\] has 4",
        ),
        (changed(2, torch.ones(5, 3, 2, 1).int()), r"cores\[2\] is torch.int32"),
        (changed(2, torch.ones(5, 3, 2, 1).half()), r"cores\[2\] is torch.float16: all must be"),
        (changed(2, torch.ones(5, 3, 2, 1, device="meta")), r"cores\[2\] is on meta, cores\[0\]"),
        (
            [torch.empty(n, 1, 1, 1, device="meta") for n in (2, 2**16, 2**16)],
            "Cores of 65536 × 65536 rows are too large",
        ),
    ],
)
def test_wrong_cores_are_named(cores, message):
    with pytest.raises(ValueError, match=message):
        tt_lookup(torch.zeros(2, dtype=torch.int64, device=cores[0].device), cores)


def test_wrong_indices_are_named():
    cores = random_cores(*TRAINS["three"])
    with pytest.raises(ValueError, match=r"int64 or int32, got torch\.float32"):
        tt_lookup(torch.zeros(2), cores)
    with pytest.raises(ValueError, match="indices are on meta, cores are on cpu"):
        tt_lookup(torch.zeros(2, dtype=torch.int64, device="meta"), cores)


@pytest.mark.parametrize("name", ["tt_lookup", "tt_lookup_backward", "tt_left", "tt_sort"])
def test_compiled_code_is_found_again(name):
    cores, indices = random_cores(*TRAINS["four"]), torch.arange(40)
    gradients(indices, cores, torch.ones(40, 12))
    module = importlib.import_module(f"lit_gnncompress.kernels.cpu.{name}")
    found = [value for value in vars(module).values() if hasattr(value, "stats")]
    for compile_kernel in ("_compiled", "_multiply"):
        if hasattr(module, compile_kernel):
            sizes = (8, 8, 8)[: getattr(module, compile_kernel).__wrapped__.__code__.co_argcount]
            found.append(getattr(module, compile_kernel)(*sizes))
    assert found
    for kernel in found:
        assert kernel.stats.cache_path
