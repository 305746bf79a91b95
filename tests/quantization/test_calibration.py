import itertools
import json

import pytest
import torch

from lit_gnncompress.quantization import Quantizer
from lit_gnncompress.quantization.calibration import KnownRange, KnownRanges, from_plain, to_plain
from lit_gnncompress.quantization.degrees import DegreeBuckets


def batches():
    """Three batches of rows in three buckets, each with a bucket missing; one of a single row."""
    torch.manual_seed(0)
    for index in ([0, 0, 1], [1, 2, 2, 1], [2]):
        x = torch.randn(len(index), 4) * 10 ** torch.tensor(index).unsqueeze(1)
        yield x, DegreeBuckets(torch.tensor(index), 3)


@pytest.mark.parametrize("granularity", ["auto", "tensor", "bucket", "column", "row"])
def test_ranges_are_joined_in_any_order(granularity):
    quantizer = Quantizer("minmax", granularity)
    found = [
        KnownRange.of(quantizer.find_range(x, (8, 4, 2), b), b, granularity) for x, b in batches()
    ]
    joined = []
    for first, *others in itertools.permutations(found):
        for other in others:
            first = first.joined(other)
        joined.append(first)
    for one in joined[1:]:
        for ends, expected in zip(one.range, joined[0].range, strict=True):
            assert torch.equal(ends, expected)
    if granularity == "bucket":
        for bucket in range(3):
            rows = torch.cat([x[b.index == bucket] for x, b in batches()])
            assert joined[0].range.lo[bucket] == rows.min()
            assert joined[0].range.hi[bucket] == rows.max()
    assert bool(joined[0].present.all())


def test_a_range_of_another_width_takes_the_place_of_the_one_before():
    quantizer = Quantizer("minmax", "column")
    narrow, wide = (
        KnownRange.of(quantizer.find_range(torch.rand(5, width), 4), None, "column")
        for width in (2, 3)
    )
    assert narrow.joined(wide) is wide


def ranges_of(*highest):
    """Ranges from 0 to these, of a tensor each."""
    quantizer = Quantizer("minmax", "tensor")
    rows = [torch.linspace(0, high, 8).view(4, 2) for high in highest]
    return [KnownRange.of(quantizer.find_range(x, 4), None, "tensor") for x in rows]


def test_ranges_of_a_layer_by_place():
    first, second = ranges_of(1, 2)
    known = KnownRanges()
    assert known.calls == []
    known.keep((1, 1), second, join=False)
    known.keep((0, 0), first, join=True)
    assert known.find((0, 0), 2) is first
    assert known.find((1, 0), 2) is None
    [[one], [hole, two]] = known.calls
    assert (one, hole, two) == (first.range, None, second.range)
    again = KnownRanges(known.calls)
    assert [*map(len, again.calls)] == [1, 2]
    assert again.find((1, 1), 2).range is second.range


@pytest.mark.parametrize(("join", "highest"), [(True, 2), (False, 1)])
def test_a_range_joins_the_one_before_or_replaces_it(join, highest):
    low, high = ranges_of(1, 2)
    known = KnownRanges([[high.range]])
    known.keep((0, 0), low, join)
    assert float(known.find((0, 0), 2).range.hi) == highest


def test_ranges_of_columns_serve_their_width_alone():
    found = Quantizer("minmax", "column").find_range(torch.rand(5, 3), 4).calibrated(None)
    known = KnownRanges([[found]])
    assert known.find((0, 0), 3).range is found
    assert known.find((0, 0), 2) is None


def test_ranges_as_plain_lists():
    known = Quantizer().find_range(torch.rand(5, 2), 4).calibrated(None)
    once, hole, twice = [[known]], [[None, known]], [[known], [known, known]]
    plain = to_plain({"once": once, "hole": hole, "twice": twice})
    assert plain["once"] == [known.to_dict()]
    assert plain["hole"] == [None, known.to_dict()]
    assert plain["twice"] == [[known.to_dict()], [known.to_dict(), known.to_dict()]]
    again = from_plain(json.loads(json.dumps(plain)))
    assert to_plain(again) == plain
    assert again["hole"][0][0] is None


@pytest.mark.parametrize("found", [[{"lo": 1}], [[{"lo": [[0]]}]], [3], [["x"]]])
def test_what_is_no_range_is_refused(found):
    with pytest.raises(ValueError, match="A calibrated range"):
        from_plain({"conv": found})
