import pytest
import torch

from lit_gnncompress.quantization import DegreeBuckets, Quantizer

X = torch.tensor([[0.0, 10.0], [1.0, 20.0], [2.0, 30.0], [3.0, 80.0]])
TWO_BUCKETS = DegreeBuckets(torch.tensor([0, 0, 1, 1]), 2)


def spread(ends, like):
    return torch.broadcast_to(ends, like.shape).tolist()


@pytest.mark.parametrize(
    ("granularity", "lo", "hi"),
    [
        ("tensor", [[0, 0]] * 4, [[80, 80]] * 4),
        ("bucket", [[0, 0], [0, 0], [2, 2], [2, 2]], [[20, 20], [20, 20], [80, 80], [80, 80]]),
        ("column", [[0, 10], [0, 10], [2, 30], [2, 30]], [[1, 20], [1, 20], [3, 80], [3, 80]]),
        ("row", [[0, 0], [1, 1], [2, 2], [3, 3]], [[10, 10], [20, 20], [30, 30], [80, 80]]),
    ],
)
@pytest.mark.parametrize("range", ["minmax", "percentile"])
def test_who_shares_a_range(granularity, lo, hi, range):
    quantizer = Quantizer(range, granularity, percentile=1)
    found = quantizer.find_range(X, (2, 4), TWO_BUCKETS)
    assert spread(found.lo, X) == lo
    assert spread(found.hi, X) == hi
    assert found.by_row.tolist() == [granularity == "row"] * 2


@pytest.mark.parametrize("granularity", ["tensor", "bucket", "column"])
@pytest.mark.parametrize(("ones", "hi"), [(100, 1.0), (50, 10.0)])
def test_mse_weighs_an_outlier_against_the_rest(granularity, ones, hi):
    # At 1 bit, the codes are 0 and hi: cutting the 10 costs 81, keeping it costs 1 for each one.
    x = torch.cat([torch.zeros(20), torch.ones(ones), torch.tensor([10.0])]).unsqueeze(1)
    found = Quantizer("mse", granularity).find_range(x, 1)
    assert (found.lo.item(), found.hi.item()) == (0.0, pytest.approx(hi))


def test_mse_of_a_row_is_its_own():
    row = torch.tensor([0.0] * 20 + [1.0] * 100 + [10.0])
    found = Quantizer("mse", "row").find_range(torch.stack([row, row * 3, row.clamp(max=1)]), 1)
    assert found.hi.flatten().tolist() == pytest.approx([1.0, 3.0, 1.0])


def test_mse_shared_by_buckets_weighs_them_by_their_rows():
    x = torch.cat([torch.zeros(20), torch.ones(100), torch.tensor([10.0])]).unsqueeze(1)
    buckets = DegreeBuckets((torch.arange(len(x)) == len(x) - 1).long(), 2)
    assert Quantizer("mse", "tensor").find_range(x, (1, 1), buckets).hi.item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("first", "sign", "lo", "hi"),
    [(1, 1, 10, 90), (0, 1, 0, 89), (1, -1, -91, -11), (0, -1, -90, 0)],
)
def test_percentiles_cut_both_ends_but_not_at_zero(first, sign, lo, hi):
    x = sign * torch.arange(first, first + 100).float().unsqueeze(1)
    found = Quantizer("percentile", "tensor", percentile=0.9).find_range(x, 4)
    assert (found.lo.item(), found.hi.item()) == (lo, hi)


def test_auto_gives_rows_ranges_only_where_that_pays():
    torch.manual_seed(0)
    scales = torch.rand(60, 1)
    buckets = DegreeBuckets(torch.arange(120) // 60, 2)
    x = torch.cat([(torch.rand(60, 64) > 0.5) * scales, torch.rand(60, 64)])
    found = Quantizer().find_range(x, (4, 4), buckets)
    assert found.by_row.tolist() == [True, False]
    assert torch.equal(found.hi[:60], x[:60].amax(1, keepdim=True))
    assert found.hi[60:].unique().numel() == 1
    # A range takes more than two columns would: it pays only where it leaves no error.
    assert not Quantizer().find_range(torch.rand(60, 2) * scales, 4).by_row.any()


def test_large_matrices_are_sampled_evenly_and_always_alike():
    x = torch.rand(5000, 64, generator=torch.Generator().manual_seed(0))
    first, again = (Quantizer("percentile", "tensor").find_range(x, 4) for _ in range(2))
    assert torch.equal(first.hi, again.hi)
    assert first.hi.item() == pytest.approx(0.99, abs=0.01)


def test_minmax_looks_at_every_row():
    x = torch.rand(5000, 64)
    x[4321, 5], x[1234, 6] = 9, -9
    for granularity in ("tensor", "bucket", "column"):
        found = Quantizer("minmax", granularity).find_range(x, 4)
        assert (found.lo.min(), found.hi.max()) == (-9, 9)
