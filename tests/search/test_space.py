import json

import pytest

from lit_gnncompress import BitPlan, Site
from lit_gnncompress.search import SiteSize, Space
from lit_gnncompress.search.starting_points import starting_points
from tests.search import problems

A, B = Site("a", "features"), Site("b", "features")
ATTENTION = Site("b", "attention")
SITES = [SiteSize(A, (30, 10)), SiteSize(B, (6, 2)), SiteSize(ATTENTION, (3, 1))]


def two(**arguments):
    return Space(SITES, **{"group": "bucket", "degree_splits": [4]} | arguments)


@pytest.mark.parametrize(
    ("group", "dimensions", "bits", "plan"),
    [
        ("bucket", 6, (1, 2, 4, 8, 1, 1), ({"a": [1, 2], "b": [4, 8]}, {"b": 1})),
        ("site", 3, (1, 2, 4), ({"a": 1, "b": 2}, {"b": 4})),
        ("layer", 2, (1, 2), ({"a": 1, "b": 2}, {"b": 2})),
        ("component", 2, (1, 2), ({"a": 1, "b": 1}, {"b": 2})),
        ("all", 1, (4,), ({"a": 4, "b": 4}, {"b": 4})),
    ],
)
def test_a_point_is_a_plan_and_back(group, dimensions, bits, plan):
    space = two(group=group)
    assert len(space.dimensions) == dimensions
    assert space.num_plans == 4**dimensions
    made = space.plan(bits)
    assert made == BitPlan(*plan, degree_splits=[4])
    assert space.point(made) == bits
    assert json.loads(made.to_json()) == made.to_dict()


def test_every_plan_of_a_small_space_comes_back():
    space = two(group="site", bits=(2, 8))
    points = list(space.points())
    assert len(points) == len(set(points)) == 8
    assert [space.point(space.plan(point)) for point in points] == points


def test_auto_takes_the_finest_that_is_small_enough():
    assert len(problems.space(3, group="auto").dimensions) == 18
    assert len(problems.space(5, group="auto").dimensions) == 10  # by site
    assert len(problems.space(20, group="auto").dimensions) == 20  # by layer
    assert len(problems.space(30, group="auto").dimensions) == 2


def test_the_paper_counts_codes_of_features():
    space = two()
    point = (1, 2, 4, 8, 8, 8)
    code_bits = 30 * 1 + 10 * 2 + 6 * 4 + 2 * 8
    assert space.num_bytes(point) == -(-code_bits // 8)
    assert space.saving(point) == pytest.approx(32 * 48 / code_bits)
    assert space.saving(space.uniform(4)) == 8


def test_attention_decides_between_equals():
    space = two()
    high, low = (1, 1, 1, 1, 8, 8), (1, 1, 1, 1, 1, 8)
    assert space.saving(high) == space.saving(low)
    assert space.merit(low) > space.merit(high)


def test_an_exact_form_is_a_choice_where_it_is_smaller():
    stored = {1: (6, 2), 2: (10, 4), 4: (18, 6), 8: (33, 11), 32: (3, 1)}
    sites = [SiteSize(A, (30, 10), stored), SiteSize(B, (6, 2), {32: (24, 8)})]
    space = Space(sites, group="site", degree_splits=[4], count="stored")
    assert [d.choices for d in space.dimensions] == [(1, 2, 4, 8, 32), (1, 2, 4, 8)]
    assert space.num_bytes((32, 4)) == 4 + 4
    assert space.num_bytes((8, 4)) == 44 + 4
    assert space.plan((32, 4)).features == {"a": 32, "b": 4}
    assert max(space.points(), key=space.saving)[0] == 32
    paper = Space(sites, group="site", degree_splits=[4])
    assert paper.dimensions[0].choices == (1, 2, 4, 8)


def test_attention_has_bits_of_its_own():
    space = two(group="site", attention_bits=(8, 32))
    assert [d.choices for d in space.dimensions] == [(1, 2, 4, 8), (1, 2, 4, 8), (8, 32)]
    assert space.plan((1, 2, 32)).attention == {"b": 32}
    assert space.point(BitPlan(2, 2)) == (2, 2, 8)
    found = [point for point, _ in starting_points(space, BitPlan({"a": 1, "b": 8}, 8), 20)]
    for point in found:
        space.check(point)
    assert {(8, 8, 8), (8, 8, 32), (1, 8, 8), (1, 8, 32)} <= set(found)
    together = two(group="layer", attention_bits=(8, 32))
    assert [d.choices for d in together.dimensions] == [(1, 2, 4, 8)] * 2


def test_bits_between_the_choices_are_rounded_up():
    space = two(group="site")
    assert space.point(BitPlan({"a": 3, "b": 5})) == (4, 8, 8)
    assert space.point(BitPlan({"a": [1, 4], "b": 2}, 1, degree_splits=[4])) == (4, 2, 1)


def test_a_site_without_buckets_in_a_plan_with_them():
    space = Space([*SITES, SiteSize(Site("lin", "features"), (100,))], (2, 4), "bucket", [4])
    assert len(space.dimensions) == 7
    point = (2, 4, 2, 4, 2, 4, 2)
    assert space.plan(point).features["lin"] == 2
    assert space.point(space.plan(point)) == point


def test_features_of_the_cost_model():
    space = two(group="site")
    features = space.features([(1, 2, 8), (8, 8, 8)])
    assert features.shape == (2, 4)
    assert features[0, :3].tolist() == [0, 1, 3]
    assert features[1, 3] == pytest.approx(1.386, abs=1e-3)  # log 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": ()}, "bits is empty"),
        ({"bits": (1, 9)}, "9"),
        ({"attention_bits": ()}, "attention_bits is empty"),
        ({"group": "layers"}, "Did you mean 'layer'"),
        ({"count": "papers"}, "Did you mean 'paper'"),
        ({"degree_splits": [2, 4]}, "a: 2 buckets, but the space has 3"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        two(**arguments)


def test_no_sites():
    with pytest.raises(ValueError, match="sites is empty"):
        Space([])


@pytest.mark.parametrize(
    ("point", "message"), [((1, 2), "2 numbers for the 3"), ((1, 2, 3), "b attention: 3 bits")]
)
def test_what_is_no_point(point, message):
    with pytest.raises(ValueError, match=message):
        two(group="site").plan(point)


def test_a_plan_with_other_buckets():
    with pytest.raises(ValueError, match=r"split at \[8\]; those of the space.*\[4\]"):
        two().point(BitPlan([1, 2], degree_splits=[8]))
