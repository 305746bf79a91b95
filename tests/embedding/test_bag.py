import math
import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lit_gnncompress.embedding import TTEmbedding, TTEmbeddingBag
from tests.embedding.tables import random_order

N = 100
MODES = ["sum", "mean", "max"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


def make(rows=(4, 5, 6), columns=(3, 2, 2), num_embeddings=N, **arguments):
    arguments = {"rank": 3} | arguments
    return TTEmbeddingBag(num_embeddings, 12, rows=rows, columns=columns, **arguments)


def peer_of(table):
    """``nn.EmbeddingBag`` of the same rows."""
    weight = table.full_weight().detach()
    return nn.EmbeddingBag(
        *weight.shape,
        mode=table.mode,
        _weight=weight,
        include_last_offset=table.include_last_offset,
        padding_idx=table.padding_idx,
    )


def random_bags(bags, count, include_last_offset=False, num_embeddings=N, dtype=torch.int64):
    """Indices, and offsets with empty bags."""
    cuts = torch.randint(0, count + 1, (max(0, bags - 1),)).sort()[0]
    offsets = torch.cat([cuts.new_zeros(min(bags, 1)), cuts])
    if include_last_offset:
        offsets = torch.cat([offsets, offsets.new_full((1,), count)])
    return torch.randint(num_embeddings, (count,), dtype=dtype), offsets.to(dtype)


def check_like_embedding_bag(table, *args):
    """The same sums, and the same gradients of everything that has any."""
    tolerance = {torch.float64: 1e-10, torch.bfloat16: 0.05, torch.float16: 0.005}
    tolerance = tolerance.get(table.cores[0].dtype, 1e-4)

    def close(one, other):
        largest = max(1.0, other.abs().max().item() if other.numel() else 0.0)
        torch.testing.assert_close(one, other, atol=tolerance * largest, rtol=tolerance)

    out, peer = table(*args), peer_of(table)
    close(out, peer(*args))
    if out.dtype.itemsize < 4:
        return  # torch rounds each of the sums that a row's gradient is made of
    grad = torch.randn_like(out)
    weights = [w for w in args[2:] if w is not None]
    leaves = [*table.parameters(), *weights]
    found = torch.autograd.grad(out, leaves, grad)
    through = F.embedding_bag(
        args[0],
        table.full_weight(),
        None if len(args) == 1 else args[1],
        mode=table.mode,
        per_sample_weights=weights[0] if weights else None,
        include_last_offset=table.include_last_offset,
        padding_idx=table.padding_idx,
    )
    for one, other in zip(found, torch.autograd.grad(through, leaves, grad), strict=True):
        close(one, other)


# --- as nn.EmbeddingBag ---------------------------------------------------------------------------


@pytest.mark.parametrize("padding_idx", [None, 7, -1])
@pytest.mark.parametrize("include_last_offset", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_bags_told_by_offsets(mode, dtype, include_last_offset, padding_idx):
    table = make(mode=mode, include_last_offset=include_last_offset, padding_idx=padding_idx)
    input, offsets = random_bags(9, 60, include_last_offset, dtype=dtype)
    input[::4] = 7 if padding_idx is None else padding_idx % N
    check_like_embedding_bag(table, input, offsets)


@pytest.mark.parametrize("padding_idx", [None, 7])
@pytest.mark.parametrize("shape", [(5, 4), (5, 1), (3, 0), (0, 4)])
def test_a_bag_in_each_row(mode, shape, padding_idx):
    table = make(mode=mode, padding_idx=padding_idx)
    input = torch.randint(N, shape)
    input[:2, :3] = 7
    if 0 in shape:  # torch refuses these, or takes them to be no bags
        assert torch.equal(table(input), torch.zeros(shape[0], 12))
    else:
        check_like_embedding_bag(table, input)


@pytest.mark.parametrize("include_last_offset", [False, True])
def test_no_indices(mode, include_last_offset):
    table = make(mode=mode, include_last_offset=include_last_offset)
    for bags in (0, 3):
        offsets = torch.zeros(bags + include_last_offset, dtype=torch.long)
        out = table(torch.empty(0, dtype=torch.long), offsets)
        assert torch.equal(out, torch.zeros(bags, 12))
        out.sum().backward()


@pytest.mark.parametrize("padding_idx", [None, 7])
@pytest.mark.parametrize("shape", [(60,), (6, 10), (6, 1)])
def test_weights_of_samples(shape, padding_idx):
    table = make(mode="sum", padding_idx=padding_idx, dtype=torch.float64)
    input, offsets = torch.randint(N, shape), None
    if len(shape) == 1:
        offsets = random_bags(9, 60)[1]
    input.view(-1)[:3] = 7
    weights = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    check_like_embedding_bag(table, input, offsets, weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(mode, dtype):
    table = make(mode=mode, dtype=dtype, std=0.3)
    check_like_embedding_bag(table, *random_bags(9, 60))
    if mode == "sum":
        weights = torch.rand(60).to(dtype).requires_grad_()
        check_like_embedding_bag(table, *random_bags(9, 60), weights)


@pytest.mark.parametrize(("rows", "columns"), [((9, 12), (4, 3)), ((3, 3, 4, 3), (2, 3, 2, 1))])
def test_other_numbers_of_cores(mode, rows, columns):
    check_like_embedding_bag(make(rows, columns, mode=mode), *random_bags(9, 60))


@pytest.mark.parametrize("padding_idx", [None, 4])
@pytest.mark.parametrize("parts", [False, [1, 2]])
@pytest.mark.parametrize("learn_scale", [False, True])
def test_order_parts_and_scale(mode, parts, learn_scale, padding_idx):
    table = make(
        mode=mode, order=random_order(N, (4, 5, 6)), parts=parts, learn_scale=learn_scale,
        padding_idx=padding_idx, dtype=torch.float64,
    )  # fmt: skip
    check_like_embedding_bag(table, *random_bags(9, 60))


@settings(max_examples=int(os.environ.get("GNNCOMPRESS_EXAMPLES", 200)), deadline=None)
@given(
    mode=st.sampled_from(MODES),
    bags=st.integers(0, 6),
    count=st.integers(0, 20),
    wide=st.integers(0, 1),
    last=st.booleans(),
    padding=st.sampled_from([None, 0, 5]),
    weighted=st.booleans(),
    rows=st.sampled_from([(3, 4), (2, 3, 4), (2, 2, 3, 2)]),
    seed=st.integers(0, 2**31),
)
def test_random_cases(mode, bags, count, wide, last, padding, weighted, rows, seed):
    torch.manual_seed(seed)
    columns = {2: (4, 3), 3: (3, 2, 2), 4: (3, 2, 2, 1)}[len(rows)]
    table = make(
        rows, columns, 11, mode=mode, include_last_offset=last, padding_idx=padding,
        dtype=torch.float64,
    )  # fmt: skip
    count = count if bags else 0
    input, offsets = random_bags(bags, count, last, 11, (torch.int64, torch.int32)[wide])
    weights = None
    if weighted and mode == "sum":
        weights = torch.randn(count, dtype=torch.float64, requires_grad=True)
    if bags == 0 or count == 0:
        out = table(input, offsets, weights)
        assert torch.equal(out, torch.zeros(bags, 12, dtype=torch.float64))
    else:
        check_like_embedding_bag(table, input, offsets, weights)


def test_gradcheck(mode):
    table = make(rows=(2, 3, 2), num_embeddings=11, mode=mode, padding_idx=3, dtype=torch.float64)
    input, offsets = random_bags(4, 12, num_embeddings=11)
    weights = torch.randn(12, dtype=torch.float64, requires_grad=True) if mode == "sum" else None
    names = [name for name, _ in table.named_parameters()]

    def reduce(*tensors):
        parameters = dict(zip(names, tensors, strict=False))
        given = tensors[len(names)] if weights is not None else None
        return torch.func.functional_call(table, parameters, (input, offsets, given))

    leaves = [*table.parameters(), *([] if weights is None else [weights])]
    assert torch.autograd.gradcheck(reduce, leaves, fast_mode=True)


# --- rows, large and all --------------------------------------------------------------------------


def test_row_numbers_above_2_to_the_31_are_exact():
    rows = (3000, 2000, 1000)
    table = TTEmbeddingBag(6 * 10**9, 4, mode="sum", rows=rows, columns=(1, 2, 2), rank=2)
    numbers = [2**24, 2**24 + 1, 2**31 + 5, 2**32 + 1, 6 * 10**9 - 1]
    first, second, third = table.cores
    expected = []
    for number in numbers:
        slices = first[number // 2_000_000], second[number // 1000 % 2000], third[number % 1000]
        expected.append(torch.einsum("xas,sbt,tcy->abc", *slices).flatten())
    found = table(torch.tensor(numbers + numbers[:2]), torch.arange(6))
    torch.testing.assert_close(found[:5], torch.stack(expected))
    torch.testing.assert_close(found[5], expected[0] + expected[1])


@pytest.mark.parametrize("weighted", [False, True])
def test_every_row_of_a_core_that_a_batch_touches_gets_its_gradient(weighted):
    rows = (200, 220, 250)
    table = TTEmbeddingBag(math.prod(rows), 64, mode="sum", rows=rows, columns=(8, 2, 4), rank=4)
    input = torch.randint(table.num_embeddings, (10_240,))
    weights = torch.rand(10_240) + 0.5 if weighted else None
    table(input, torch.arange(0, 10_240, 5), weights).sum().backward()
    digits = input // (220 * 250), input // 250 % 220, input % 250
    for core, digit in zip(table.cores, digits, strict=True):
        touched = core.grad.flatten(1).abs().sum(1).nonzero()[:, 0]
        assert torch.equal(touched, digit.unique())


# --- made, saved, compiled ------------------------------------------------------------------------


def test_from_pretrained(mode):
    weight = torch.randn(N, 12)
    table = TTEmbeddingBag.from_pretrained(
        weight, error=0.2, mode=mode, padding_idx=3, include_last_offset=True
    )
    assert (table.mode, table.padding_idx, table.include_last_offset) == (mode, 3, True)
    weight[3] = 0
    assert (table.full_weight() - weight).norm() <= 0.2 * weight.norm()
    assert not any(p.requires_grad for p in table.parameters())
    table = TTEmbeddingBag.from_pretrained(weight, False, rank=2)
    assert table.shape.ranks == (2, 2)
    assert all(p.requires_grad for p in table.parameters())


def test_states_are_those_of_a_lookup_table():
    arguments = {"rank": 3, "rows": (4, 5, 6), "columns": (3, 2, 2), "learn_scale": True}
    lookup = TTEmbedding(N, 12, order=random_order(N, (4, 5, 6)), **arguments)
    table = make(learn_scale=True)
    table.load_state_dict(lookup.state_dict())
    assert torch.equal(table.full_weight(), lookup.full_weight())
    assert table.compression_ratio == lookup.compression_ratio
    with pytest.raises(RuntimeError, match=r"was made with rows=\(4, 5, 6\)"):
        make(rows=(6, 5, 4), learn_scale=True).load_state_dict(lookup.state_dict())


def test_compiled_whole(mode):
    table = make(mode=mode, order=random_order(N, (4, 5, 6)), padding_idx=2)
    input, offsets = random_bags(9, 60)
    compiled = torch.compile(
        lambda *args: table(*args).square().sum(), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(input, offsets), table(input, offsets).square().sum())
    with pytest.raises(RuntimeError, match="input outside of 100 embeddings"):
        compiled(torch.full((60,), N), offsets)
    with pytest.raises(RuntimeError, match="offsets do not split 60 indices"):
        compiled(input, offsets.flip(0))


def test_what_is_printed():
    text = repr(make(mode="max", padding_idx=3, include_last_offset=True))
    for part in ("100, 12, padding_idx=3", "rank=(3, 3)", "mode='max', include_last_offset=True"):
        assert part in text
    assert "include_last_offset" not in repr(make())


# --- bad input ------------------------------------------------------------------------------------

INPUT = torch.tensor([5, 7, 9])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((INPUT,), r"one-dimensional input needs offsets, .* got none"),
        ((INPUT, torch.tensor([0.0])), r"needs offsets.*got torch\.float32 of \(1,\)"),
        ((INPUT, torch.tensor([[0]])), r"needs offsets.*got torch\.int64 of \(1, 1\)"),
        ((INPUT, torch.tensor([1, 2])), r"offsets\[0\]=1 must be 0"),
        ((INPUT, torch.tensor([0, 2, 1])), r"offsets\[2\]=1 is below offsets\[1\]=2"),
        ((INPUT, torch.tensor([0, 4])), r"offsets\[1\]=4 is above the number of indices, 3"),
        ((INPUT, torch.empty(0).long()), "offsets are empty: there is no bag for the 3 indices"),
        ((INPUT.view(1, 3), torch.tensor([0])), r"each row of input, of shape \(1, 3\), is a bag"),
        ((INPUT.view(1, 1, 3),), r"input must have one dimension, or two .* \(1, 1, 3\)"),
        ((INPUT.float(), torch.tensor([0])), "input must be int64 or int32"),
    ],
)
def test_what_are_no_bags(mode, args, message):
    with pytest.raises(ValueError, match=message):
        make(mode=mode)(*args)


def test_what_is_no_tensor(mode):
    message = r"input is a list and must be a tensor, .*torch\.as_tensor\(input\)"
    with pytest.raises(TypeError, match=message):
        make(mode=mode)([1, 2], torch.tensor([0]))


def test_an_index_out_of_range_says_which_and_where(mode):
    for padding_idx in (None, 5):
        table = make(mode=mode, padding_idx=padding_idx)
        with pytest.raises(IndexError, match=r"input\[1\]=100 is no row: num_embeddings=100"):
            table(torch.tensor([5, 100, 7]), torch.tensor([0]))


@pytest.mark.parametrize(
    ("arguments", "weights", "message"),
    [
        ({"mode": "mean"}, torch.ones(3), "per_sample_weights are for mode='sum', .*'mean'"),
        ({"mode": "max"}, torch.ones(3), "per_sample_weights are for mode='sum', .*'max'"),
        ({"mode": "sum"}, torch.ones(2), r"have shape \(2,\), input has \(3,\)"),
        ({"mode": "sum"}, torch.ones(3).double(), r"are torch\.float64, the table is torch\.float"),
    ],
)
def test_weights_that_do_not_fit(arguments, weights, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)(INPUT, torch.tensor([0]), weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "median"}, "mode='median' is none of sum, mean, max"),
        ({"max_norm": 1.0}, r"max_norm=1.0 .*weight decay keeps cores small"),
        ({"scale_grad_by_freq": True}, "scale_grad_by_freq=True: gradients are those of cores"),
        ({"sparse": True}, "sparse=True: cores are small and their gradients dense. Leave it out"),
        ({"padding_idx": 100}, "padding_idx=100 is no row"),
        ({"rank": 0}, "rank: 0"),
    ],
)
def test_what_is_no_table(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
