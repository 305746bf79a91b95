import math

import pytest
import torch
import torch.nn.functional as F

from lit_gnncompress.kernels import tt_embedding_bag, tt_lookup, tt_table
from lit_gnncompress.kernels.reference import tt_embedding_bag as reference
from lit_gnncompress.kernels.reference import tt_embedding_bag_backward as reference_backward
from lit_gnncompress.kernels.tt_embedding_bag import _tt_embedding_bag
from lit_gnncompress.kernels.tt_embedding_bag_backward import _tt_embedding_bag_backward
from tests.kernels.conftest import random_cores, strided

TRAINS = {
    "two": ((7, 9), (3, 5), (4,)),
    "three": ((3, 4, 5), (2, 3, 2), (2, 3)),
    "three, whole vectors": ((9, 8, 7), (4, 4, 4), (16, 16)),
    "four": ((3, 2, 4, 2), (2, 1, 3, 2), (2, 3, 4)),
}
BAGS = ["none", "no indices", "ones", "random", "one of all"]


@pytest.fixture(params=TRAINS, ids=TRAINS)
def train(request):
    return TRAINS[request.param]


@pytest.fixture(params=[False, True], ids=["sums", "weighted"])
def weighted(request):
    return request.param


def bags_of(rows, kind, count=400):
    """Indices and offsets."""
    if kind in ("none", "no indices"):
        return torch.empty(0, dtype=torch.long), torch.zeros(
            1 if kind == "none" else 4, dtype=torch.long
        )
    indices = torch.randint(0, math.prod(rows), (count,))
    indices[: count // 4] = indices[:1]
    if kind == "ones":
        return indices, torch.arange(count + 1)
    if kind == "one of all":
        return indices, torch.tensor([0, 0, count])
    cuts = torch.randint(0, count + 1, (count // 5,)).sort()[0]
    return indices, torch.cat([cuts.new_zeros(2), cuts, cuts.new_full((2,), count)])


def weights_of(indices, weighted, dtype=torch.float32):
    return torch.randn(indices.numel()).to(dtype) if weighted else None


def close(result, expected):
    assert result.dtype == expected.dtype
    tolerance = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float64: 1e-12}
    relative = tolerance.get(result.dtype, 1e-5)
    largest = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(result, expected, rtol=relative, atol=relative * largest)


def gradients(indices, offsets, cores, weights, grad):
    """Through autograd, those of the weights last."""
    leaves = [
        t.detach().requires_grad_() for t in [*cores, *([] if weights is None else [weights])]
    ]
    given = leaves[len(cores)] if weights is not None else None
    out = tt_embedding_bag(indices, offsets, leaves[: len(cores)], given)
    return torch.autograd.grad(out, leaves, grad)


@pytest.mark.parametrize("kind", BAGS)
def test_equals_the_reference(train, kind, weighted):
    rows, columns, ranks = train
    cores, (indices, offsets) = random_cores(rows, columns, ranks), bags_of(rows, kind)
    weights = weights_of(indices, weighted)
    args = indices, offsets, weights, cores, True
    out, *places = _tt_embedding_bag(*args)
    expected, *expected_places = reference.tt_embedding_bag(*args)
    assert out.shape == (len(offsets) - 1, math.prod(columns))
    close(out, expected)
    for found, place in zip(places, expected_places, strict=True):
        assert torch.equal(found, place)
    args = torch.randn_like(out), offsets, weights, cores, *places, weighted
    found, of_weights = _tt_embedding_bag_backward(*args)
    others, expected = reference_backward.tt_embedding_bag_backward(*args)
    for one, other in zip([*found, of_weights], [*others, expected], strict=True):
        close(one, other)


def test_the_reference_is_what_torch_does_with_the_table(weighted):
    rows, columns, ranks = TRAINS["three"]
    cores = random_cores(rows, columns, ranks, torch.float64)
    indices, offsets = bags_of(rows, "random")
    weights = weights_of(indices, weighted, torch.float64)
    expected = F.embedding_bag(
        indices, tt_table(cores), offsets, mode="sum", per_sample_weights=weights,
        include_last_offset=True,
    )  # fmt: skip
    close(tt_embedding_bag(indices, offsets, cores, weights), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(dtype, weighted):
    rows, columns, ranks = TRAINS["three, whole vectors"]
    cores, (indices, offsets) = random_cores(rows, columns, ranks, dtype), bags_of(rows, "random")
    weights = weights_of(indices, weighted, dtype)
    exact = [core.double() for core in cores]
    wide = None if weights is None else weights.double()
    out = tt_embedding_bag(indices.int(), offsets.int(), cores, weights)
    grad = torch.randn(out.shape).to(dtype)
    close(out, tt_embedding_bag(indices, offsets, exact, wide).to(dtype))
    expected = gradients(indices, offsets, exact, wide, grad.double())
    found = gradients(indices, offsets, cores, weights, grad)
    for one, other in zip(found, expected, strict=True):
        close(one, other.to(dtype))


def test_bags_of_one_are_rows():
    rows, columns, ranks = TRAINS["three, whole vectors"]
    cores, (indices, offsets) = random_cores(rows, columns, ranks), bags_of(rows, "ones")
    assert torch.equal(tt_embedding_bag(indices, offsets, cores), tt_lookup(indices, cores))


def test_not_contiguous():
    rows, columns, ranks = TRAINS["three"]
    cores, (indices, offsets) = random_cores(rows, columns, ranks), bags_of(rows, "random")
    weights = weights_of(indices, True)
    grad = torch.randn(len(offsets) - 1, math.prod(columns))
    spread = [strided(core.transpose(0, 2)).transpose(0, 2) for core in cores]
    args = strided(indices), strided(offsets), spread, strided(weights)
    expected = tt_embedding_bag(indices, offsets, cores, weights)
    assert torch.equal(tt_embedding_bag(*args), expected)
    for one, other in zip(
        gradients(*args, strided(grad)),
        gradients(indices, offsets, cores, weights, grad),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_gradcheck(train, weighted):
    rows, columns, ranks = ((2, 3, 2, 2)[: len(train[0])], train[1], train[2])
    cores = random_cores(rows, columns, ranks, torch.float64)
    indices, offsets = torch.tensor([0, 3, 3, 1, 5, 0]), torch.tensor([0, 2, 2, 6])
    leaves = [core.requires_grad_() for core in cores]
    if weighted:
        leaves.append(weights_of(indices, True, torch.float64).requires_grad_())

    def sums(*leaves):
        weights = leaves[len(cores)] if weighted else None
        return tt_embedding_bag(indices, offsets, leaves[: len(cores)], weights)

    assert torch.autograd.gradcheck(sums, leaves, fast_mode=True)


@pytest.mark.parametrize("first", [None, 0, 3])
def test_gradients_of_some_inputs_only(first):
    cores = random_cores(*TRAINS["three"])
    indices, offsets = bags_of((3, 4, 5), "random")
    weights = weights_of(indices, True)
    grad = torch.ones(len(offsets) - 1, 12)
    everything = gradients(indices, offsets, cores, weights, grad)
    leaves = [*cores, weights]
    for leaf in leaves if first is None else leaves[first : first + 1]:
        leaf.requires_grad_()
    tt_embedding_bag(indices, offsets, cores, weights).sum().backward()
    for leaf, expected in zip(leaves, everything, strict=True):
        if leaf.requires_grad:
            close(leaf.grad, expected)
        else:
            assert leaf.grad is None


def test_the_same_bits_every_time_for_any_number_of_threads(weighted):
    rows, columns, ranks = TRAINS["three, whole vectors"]
    cores, (indices, offsets) = random_cores(rows, columns, ranks), bags_of(rows, "random", 40_000)
    weights = weights_of(indices, weighted)
    grad = torch.randn(len(offsets) - 1, math.prod(columns))
    before, results = torch.get_num_threads(), []
    for run in range(8):
        torch.set_num_threads(1 + run % 4)
        try:
            found = gradients(indices, offsets, cores, weights, grad)
            results.append([tt_embedding_bag(indices, offsets, cores, weights), *found])
        finally:
            torch.set_num_threads(before)
    close(results[0][0], reference.tt_embedding_bag(indices, offsets, weights, cores, False)[0])
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            assert torch.equal(one, other)


def test_backward_keeps_indices_and_their_order_alone():
    cores = [core.requires_grad_() for core in random_cores((100,) * 3, (4,) * 3, (16, 16))]
    offsets = torch.arange(0, 5001, 10)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tt_embedding_bag(torch.randint(0, 10**6, (5000,)), offsets, cores)
    for core in cores:
        del kept[core.untyped_storage().data_ptr()]
    assert sum(kept.values()) == 12 * 5000 + 8 * 501


def test_a_second_derivative_is_refused():
    cores = [core.requires_grad_() for core in random_cores(*TRAINS["three"])]
    out = tt_embedding_bag(torch.arange(5), torch.tensor([0, 5]), cores)
    grads = torch.autograd.grad(out.square().sum(), cores, create_graph=True)
    with pytest.raises(NotImplementedError, match="tt_embedding_bag can be differentiated once"):
        grads[0].sum().backward()


def test_operations_are_whole(weighted):
    rows, columns, ranks = TRAINS["three"]
    cores, (indices, offsets) = random_cores(rows, columns, ranks), bags_of(rows, "random", 20)
    weights = weights_of(indices, weighted)
    order = _tt_embedding_bag(indices, offsets, weights, cores, True)[1:]
    learned = [core.clone().requires_grad_() for core in cores]
    for keep in (True, False):
        args = indices, offsets, weights, learned if keep else cores, keep
        torch.library.opcheck(_tt_embedding_bag, args)
    grad = torch.randn(len(offsets) - 1, 12)
    args = grad, offsets, weights, cores, *order, weighted
    torch.library.opcheck(_tt_embedding_bag_backward, args)


def test_autocast_changes_nothing(weighted):
    cores, (indices, offsets) = random_cores(*TRAINS["three"]), bags_of((3, 4, 5), "random")
    weights = weights_of(indices, weighted)
    expected = tt_embedding_bag(indices, offsets, cores, weights)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tt_embedding_bag(indices, offsets, cores, weights), expected)


@pytest.mark.parametrize(
    ("indices", "offsets", "weights", "message"),
    [
        ([[0, 1]], [0, 1], None, r"indices must have one dimension, got shape \(1, 2\)"),
        ([0.5], [0, 1], None, r"indices must be int64 or int32, got torch\.float32"),
        ([0, 1], [0.0, 2.0], None, r"offsets must be int64 or int32 of shape \(bags \+ 1,\)"),
        ([0, 1], [], None, r"got torch\.float32 of shape \(0,\)"),
        ([0, 1], [[0, 2]], None, r"got torch\.int64 of shape \(1, 2\)"),
        ([0, 1], [1, 2], None, r"offsets\[0\]=1 must be 0"),
        ([0, 1], [0, 2, 1, 2], None, r"offsets\[2\]=1 is below offsets\[1\]=2"),
        ([0, 1], [0, 1], None, r"offsets\[1\]=1 must be the number of indices, 2"),
        ([0, 1], [0, 3], None, r"offsets\[1\]=3 must be the number of indices, 2"),
        ([0, 1], [0, 2], [1.0], r"weights have shape \(1,\), indices \(2,\)"),
        ([0, 1], [0, 2], [1, 2], r"weights are torch\.int64 on cpu, cores are torch\.float32"),
    ],
)
def test_wrong_bags_are_named(indices, offsets, weights, message):
    weights = None if weights is None else torch.tensor(weights)
    with pytest.raises(ValueError, match=message):
        tt_embedding_bag(
            torch.tensor(indices), torch.tensor(offsets), random_cores(*TRAINS["three"]), weights
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_index_out_of_range_is_named(dtype):
    cores = random_cores(*TRAINS["three"], dtype)
    with pytest.raises(IndexError, match=r"indices\[2\]=60 .* the cores have 60 rows"):
        tt_embedding_bag(torch.tensor([0, 59, 60]), torch.tensor([0, 3]), cores)
