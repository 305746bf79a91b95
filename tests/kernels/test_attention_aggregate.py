import math

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.utils import softmax

from lit_gnncompress.kernels.adjacency import Adjacency
from lit_gnncompress.kernels.attention_aggregate import attention_aggregate
from lit_gnncompress.kernels.attention_range import attention_range
from lit_gnncompress.kernels.reference import attention_weights as weights
from lit_gnncompress.kernels.reference.attention_aggregate import attention_aggregate as reference
from lit_gnncompress.kernels.reference.attention_aggregate_backward import (
    attention_aggregate_backward as reference_backward,
)
from lit_gnncompress.kernels.reference.attention_range import attention_range as reference_range
from tests.kernels.conftest import random_edges, strided

HEADS_AND_CHANNELS = [(1, 1), (1, 7), (2, 64), (3, 5), (4, 16), (8, 8), (8, 32), (20, 3), (9, 40)]
BACKWARD = [(1, 7), (3, 5), (4, 16), (8, 8), (20, 3)]
NODES, TARGETS = 50, 37
SEED = 2**40 + 5


def adjacency_of(targets=TARGETS, sources=NODES, sorted_by_target=False):
    return Adjacency(*random_edges(targets, sources, sorted_by_target=sorted_by_target))


def inputs(heads, channels, sources=NODES, targets=TARGETS, dtype=torch.float32):
    generator = torch.Generator().manual_seed(heads)
    shapes = (sources, heads * channels), (sources, heads), (targets, heads)
    return [torch.randn(shape, generator=generator, dtype=dtype) * 3 for shape in shapes]


def ranges(kind):
    """Codes that fit, codes that clip and mostly vanish, and those of each target."""
    if kind == "by target":
        generator = torch.Generator().manual_seed(0)
        scale = torch.rand(TARGETS, generator=generator) * 0.3
        scale[3] = 0  # a range that is a point
        levels = torch.randint(-1, 8, (TARGETS,), generator=generator).float()
        return torch.stack([torch.linspace(0, 0.1, TARGETS), scale, levels], dim=1)
    return {"none": None, "fine": torch.tensor([[0, 1 / 15, 15]]),
            "coarse": torch.tensor([[0, 0.7, 1]])}[kind]  # fmt: skip


def expression(x, score_src, score_dst, edges, alpha_range, renormalize, dropout_p, seed):
    """What autograd can differentiate, with all coefficients in memory."""
    target, heads = weights.targets(edges.rowptr), score_src.size(1)
    score = F.leaky_relu(score_src[edges.col.long()] + score_dst[target], 0.2)
    alpha = softmax(score, target, num_nodes=score_dst.size(0))
    if alpha_range is not None:
        spread = alpha_range.to(x.dtype).expand(score_dst.size(0), 3)[target]
        lo, scale, levels = spread.unsqueeze(2).unbind(1)
        codes = torch.where(scale > 0, ((alpha - lo) / scale).round(), 0).clamp(min=0)
        by_code = alpha + (torch.minimum(codes, levels) * scale + lo - alpha).detach()
        if renormalize:
            total = torch.zeros_like(score_dst).index_add_(0, target, by_code)[target]
            alike = (1 / edges.rowptr.diff().to(x.dtype))[target].unsqueeze(1)
            by_code = torch.where(total > 0, by_code / torch.where(total > 0, total, 1), alike)
        alpha = torch.where(levels < 0, alpha, by_code)
    if dropout_p:
        alpha = alpha * weights.kept(alpha, edges.perm, dropout_p, seed)
    values = x.view(x.size(0), heads, -1)[edges.col.long()]
    out = x.new_zeros(score_dst.size(0), *values.shape[1:])
    return out.index_add(0, target, alpha.unsqueeze(2) * values).flatten(1)


def assert_as_the_reference(args, edges, **options):
    actual = attention_aggregate(*args, edges, **options)
    settings = {"alpha_range": None, "renormalize": True, "dropout_p": 0.0, "seed": 0} | options
    alpha_range, renormalize, dropout_p, seed = settings.values()
    expected = reference(
        *args, edges.rowptr, edges.col, 0.2, alpha_range, renormalize, edges.perm, dropout_p, seed
    )[0]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("heads", "channels"), HEADS_AND_CHANNELS)
def test_as_the_reference(heads, channels):
    args, edges = inputs(heads, channels), adjacency_of()
    assert_as_the_reference(args, edges)
    assert_as_the_reference(args, edges, dropout_p=0.4, seed=SEED)
    for kind in ("fine", "coarse", "by target"):
        for renormalize in (True, False):
            options = {"alpha_range": ranges(kind), "renormalize": renormalize}
            assert_as_the_reference(args, edges, **options)
            assert_as_the_reference(args, edges, **options, dropout_p=0.4, seed=SEED)


@pytest.mark.parametrize(("sources", "targets"), [(0, 0), (0, 3), (1, 1), (5, 0), (3000, 2000)])
def test_sizes(sources, targets):
    edges = adjacency_of(targets, sources, sorted_by_target=True)
    assert_as_the_reference(inputs(8, 8, sources, targets), edges)


def test_no_columns():
    assert attention_aggregate(*inputs(2, 0), adjacency_of()).shape == (TARGETS, 0)


def test_not_contiguous():
    args = inputs(4, 8)
    actual = attention_aggregate(*map(strided, args), adjacency_of())
    assert torch.equal(actual, attention_aggregate(*args, adjacency_of()))


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(threads):
    args, edges = inputs(8, 8, 3000, 4000), adjacency_of(4000, 3000)
    before = torch.get_num_threads()
    outs = []
    try:
        for number in (1, threads):
            torch.set_num_threads(number)
            leaves = [t.clone().requires_grad_() for t in args]
            out = attention_aggregate(*leaves, edges, dropout_p=0.5)
            outs.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*outs, strict=True))


def test_exponentials_are_exact_to_rounding():
    # Two edges for each target, with scores 0 and s: the second's coefficient is a sigmoid of s.
    count = 20_000
    score = torch.stack([torch.zeros(count), -torch.linspace(0, 87, count)], dim=1).view(-1, 1)
    edges = Adjacency(torch.arange(count + 1) * 2, torch.arange(2 * count).int(), None, 2 * count)
    x = torch.tensor([0.0, 1.0]).repeat(count).unsqueeze(1)
    out = attention_aggregate(x, score, torch.zeros(count, 1), edges, negative_slope=1.0)
    exact = score.double().view(-1, 2).softmax(1)[:, 1]
    assert float((out.flatten() / exact - 1).abs().max()) < 5e-7


def test_scores_far_apart_and_infinite():
    edges = Adjacency(torch.tensor([0, 3]), torch.arange(3).int(), None, 3)
    x, none = torch.tensor([[1.0], [2.0], [4.0]]), torch.zeros(1, 1)
    for scores, expected in [([0, -1e30, -1e38], 1), ([1e30, 1e30, 0], 1.5),
                             ([-math.inf, 0, -math.inf], 2)]:  # fmt: skip
        out = attention_aggregate(x, torch.tensor(scores).float().unsqueeze(1), none, edges)
        assert float(out) == expected
    for bad in (math.nan, math.inf):
        scores = torch.tensor([[0.0], [bad], [1.0]])
        assert math.isnan(float(attention_aggregate(x, scores, none, edges)))


def test_codes_are_those_of_torch():
    # Coefficients on a grid finer than the codes: halves among them go to the even one.
    count = 64
    edges = Adjacency(torch.arange(count + 1) * 2, torch.arange(2 * count).int(), None, 2 * count)
    share = (torch.arange(count) + 0.5) / count
    score = torch.stack([share.log(), (1 - share).log()], dim=1).view(-1, 1)
    none = torch.zeros(count, 1)
    x = torch.tensor([1.0, 0.0]).repeat(count).unsqueeze(1)
    exact = attention_aggregate(x, score, none, edges, negative_slope=1.0).flatten()
    alpha_range = torch.tensor([[0.01, 0.9 / 7, 7]])
    lo, scale, levels = alpha_range[0]
    actual = attention_aggregate(
        x, score, none, edges, negative_slope=1.0, alpha_range=alpha_range, renormalize=False
    )
    expected = exact.sub(lo).div(scale).round().clamp(0, levels).mul(scale).add(lo)
    assert torch.equal(actual.flatten(), expected)


@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("kind", ["none", "fine", "coarse", "by target"])
@pytest.mark.parametrize(("heads", "channels"), BACKWARD)
def test_gradients_are_those_of_autograd(heads, channels, kind, renormalize, dropout_p):
    edges, alpha_range = adjacency_of(), ranges(kind)
    settings = alpha_range, renormalize
    args = [t.requires_grad_() for t in inputs(heads, channels)]
    out = attention_aggregate(
        *args, edges, alpha_range=alpha_range, renormalize=renormalize, dropout_p=dropout_p, seed=7
    )
    grad = torch.randn_like(out)
    actual = torch.autograd.grad(out, args, grad)
    exact = [t.detach().double().requires_grad_() for t in args]
    of_exact = expression(*exact, edges, *settings, dropout_p, 7)
    expected = torch.autograd.grad(of_exact, exact, grad.double())
    plain = reference_backward(
        grad, *map(torch.Tensor.detach, args), edges.rowptr, edges.col, 0.2, *settings, edges.perm,
        dropout_p, 7,
    )  # fmt: skip
    for a, b, c in zip(actual, plain, expected, strict=True):
        close = {"rtol": 1e-4, "atol": 1e-4 * max(1.0, float(c.abs().max()))}  # terms cancel
        torch.testing.assert_close(a.double(), c, **close)
        torch.testing.assert_close(b.double(), c, **close)


def test_gradients_without_the_edges_by_source():
    edges, args = adjacency_of(), [t.requires_grad_() for t in inputs(2, 4)]
    operation = torch.ops.lit_gnncompress.attention_aggregate
    out = operation(
        *args, edges.rowptr, edges.col, 0.2, None, True, edges.perm, 0.3, 1, *[None] * 3
    )
    actual = torch.autograd.grad(out[0].sum(), args)
    out = attention_aggregate(*args, edges, dropout_p=0.3, seed=1)
    for a, b in zip(actual, torch.autograd.grad(out.sum(), args), strict=True):
        assert torch.equal(a, b)


def test_dropout_drops_as_often_as_it_says_and_belongs_to_the_edge():
    like = torch.zeros(4000, 5)
    factor = weights.kept(like, None, 0.3, 3)
    assert factor.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert abs(float((factor == 0).float().mean()) - 0.3) < 0.02
    assert not torch.equal(factor, weights.kept(like, None, 0.3, 4))
    perm = torch.randperm(4000).int()
    assert torch.equal(weights.kept(like, perm, 0.3, 3), factor[perm.long()])


def test_all_is_dropped():
    out = attention_aggregate(*inputs(2, 4), adjacency_of(), dropout_p=1.0)
    assert not out.any()


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 16, 20])
def test_range_as_the_reference(heads):
    edges = adjacency_of()
    _, score_src, score_dst = inputs(heads, 1)
    actual = attention_range(score_src, score_dst, edges)
    expected = reference_range(score_src, score_dst, edges.rowptr, edges.col, 0.2)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=1e-5)
    assert (actual[0][1], actual[1][1]) == (math.inf, -math.inf)  # no edge arrives


def test_range_clips_nothing():
    args, edges = inputs(8, 8), adjacency_of()
    lo, hi = attention_range(*args[1:], edges)
    ends = torch.stack([lo, (hi - lo) / 255, torch.full_like(lo, 255)], dim=1)
    ends = ends.where(lo.isfinite().unsqueeze(1), 0)
    out = attention_aggregate(*args, edges, alpha_range=ends, renormalize=False)
    torch.testing.assert_close(out, attention_aggregate(*args, edges), atol=0.3, rtol=0)


def test_torch_knows_the_operations():
    edges, args = adjacency_of(), inputs(2, 4)
    back = edges.transposed
    rest = edges.rowptr, edges.col, 0.2
    by_source = back.rowptr, back.col, back.perm
    operations = torch.ops.lit_gnncompress
    leaves = [t.clone().requires_grad_() for t in args]
    tested = (*leaves, *rest, ranges("fine"), True, edges.perm, 0.2, 5, *by_source)
    torch.library.opcheck(operations.attention_aggregate.default, tested)
    out, *stats = operations.attention_aggregate(*tested)
    tested = (out.detach(), *args, *tested[3:], *map(torch.Tensor.detach, stats))
    torch.library.opcheck(operations.attention_aggregate_backward.default, tested)
    torch.library.opcheck(operations.attention_range.default, (*args[1:], *rest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(NODES, 8).double()}, "x must be a float32 matrix"),
        ({"x": torch.zeros(NODES - 1, 8)}, "49 rows of values, but the adjacency has 50"),
        ({"x": torch.zeros(NODES, 7)}, "7 columns, which 2 heads"),
        ({"score_src": torch.zeros(NODES, 0)}, "score_src must be float32 of shape"),
        ({"score_src": torch.zeros(TARGETS, 2)}, r"score_src must be float32 of shape \(50, H\)"),
        ({"score_dst": torch.zeros(TARGETS, 3)}, r"score_dst must be .* as many heads"),
        ({"score_dst": torch.zeros(TARGETS, 2, device="meta")}, "score_dst is on meta"),
        ({"alpha_range": torch.zeros(2, 3)}, r"alpha_range must be .* \(1, 3\) or \(37, 3\)"),
        ({"alpha_range": torch.zeros(1, 3).double()}, "alpha_range must be float32"),
        ({"alpha_range": torch.tensor([[0, -0.1, 3]])}, r"alpha_range\[0, 1\]=-0.1.* max >= min"),
        ({"alpha_range": torch.tensor([[0, math.nan, 3]])}, "max >= min"),
        ({"dropout_p": 1.5}, "dropout_p=1.5 is no probability"),
        ({"seed": -1}, "seed=-1 must lie"),
    ],
)
def test_errors(change, message):
    x, score_src, score_dst = inputs(2, 4)
    args = {"x": x, "score_src": score_src, "score_dst": score_dst, "adjacency": adjacency_of()}
    with pytest.raises(ValueError, match=message):
        attention_aggregate(**(args | change))
