import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lit_gnncompress.plan import BitPlan, Site

LAYERS = ["model.convs.0", "model.convs.1", "model.convs.10", "model.lin"]
SITES = [Site(name, "features") for name in LAYERS] + [Site("model.convs.1", "attention")]

bits = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 32])


@st.composite
def plans(draw):
    splits = draw(st.lists(st.integers(1, 10**6), max_size=3, unique=True).map(sorted))
    quantiles = st.lists(st.floats(1e-6, 1 - 1e-6), max_size=3, unique=True).map(sorted)
    quantiles = [] if splits else draw(quantiles)
    buckets = len(splits or quantiles) + 1
    value = bits | st.lists(bits, min_size=buckets, max_size=buckets)
    spec = value | st.dictionaries(st.text(min_size=1, max_size=8), value, max_size=4)
    return BitPlan(draw(spec), draw(spec), splits, quantiles)


def table(plan):
    """What every layer's features get."""
    return {
        site.name: row for site, row in plan.resolve(SITES).items() if site.component == "features"
    }


@given(plans())
def test_a_plan_equals_its_texts(plan):
    for twin in (
        BitPlan.from_dict(plan.to_dict()),
        BitPlan.from_json(plan.to_json()),
        BitPlan.from_yaml(plan.to_yaml()),
        BitPlan.from_dict(json.loads(json.dumps(plan.to_dict()))),
        pickle.loads(pickle.dumps(plan)),
        copy.deepcopy(plan),
    ):
        assert twin == plan
        assert hash(twin) == hash(plan)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_plan_is_read_from_a_file(tmp_path, suffix):
    plan = BitPlan({"convs.0": 1, "convs.1": [8, 4]}, attention=8, degree_splits=[4])
    path = tmp_path / f"plan.{suffix}"
    path.write_text(getattr(plan, f"to_{suffix}")(), encoding="utf-8")
    assert BitPlan.load(path) == BitPlan.load(str(path)) == plan


def test_the_text_is_what_a_person_would_write():
    plan = BitPlan({"convs.0": [8, 4, 2, 1], "convs.1": 4}, degree_splits=[4, 8, 16])
    assert plan.to_dict() == {
        "features": {"convs.0": [8, 4, 2, 1], "convs.1": 4},
        "degree_splits": [4, 8, 16],
    }
    assert yaml.safe_load(plan.to_yaml()) == json.loads(plan.to_json()) == plan.to_dict()
    assert BitPlan().to_dict() == {}


def test_plans_differ_where_their_bits_differ():
    plan = BitPlan({"a": 4, "*": [2]})
    assert plan == BitPlan({"a": 4, "*": (2,)})
    assert plan != BitPlan({"a": 4, "*": [1]})
    assert plan != BitPlan({"*": [2], "a": 4})  # an earlier glob wins over a later one
    assert plan.features != BitPlan({"*": [2], "a": 4}).features
    assert (plan.features != {"a": 4, "*": [2]}) is False
    assert len({plan, BitPlan({"a": 4, "*": [2]}), BitPlan(4), BitPlan(4)}) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.features.update(a=1),
        lambda plan: plan.features.__setitem__("a", 1),
        lambda plan: plan.features.__delitem__("a"),
        lambda plan: plan.features.__ior__({"a": 1}),
        lambda plan: plan.features.setdefault("b", 1),
        lambda plan: plan.features.pop("a"),
        lambda plan: plan.features.popitem(),
        lambda plan: plan.features.clear(),
        lambda plan: setattr(plan, "features", 1),
        lambda plan: plan.degree_splits.append(1),
    ],
)
def test_nothing_changes_a_plan(change):
    plan = BitPlan({"a": [4, 2]}, degree_splits=[3])
    with pytest.raises((TypeError, AttributeError, dataclasses.FrozenInstanceError)):
        change(plan)
    assert plan == BitPlan({"a": [4, 2]}, degree_splits=[3])


def test_a_plan_forgets_what_it_was_made_from():
    features, splits = {"a": [4, 2]}, [3]
    plan = BitPlan(features, degree_splits=splits)
    features["a"][0], splits[0] = 8, 9
    assert plan == BitPlan({"a": [4, 2]}, degree_splits=[3])


def test_uniform_leaves_attention_alone_unless_told():
    assert BitPlan.uniform(4) == BitPlan(features=4, attention=32)
    assert BitPlan.uniform(4, attention=8) == BitPlan(features=4, attention=8)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (4, [4, 4, 4, 4]),
        ({}, [32, 32, 32, 32]),
        ({"convs.1": 2}, [32, 2, 32, 32]),  # convs.10 ends otherwise
        ({"*.lin": 1, "model.lin": 2, "*": 8}, [8, 8, 8, 2]),
        ({"*": 8, "*.convs.1*": 4}, [8, 8, 8, 8]),
        ({"*.convs.1*": 4, "*": 8}, [8, 4, 4, 8]),
        ({"*": 8, "convs.0": 1}, [1, 8, 8, 8]),
        ({"*.convs.[01]": 3, "model.???": 5}, [3, 3, 32, 5]),
    ],
)
def test_names_win_over_globs_and_earlier_globs_over_later(features, expected):
    assert table(BitPlan(features)) == {
        name: (row,) for name, row in zip(LAYERS, expected, strict=True)
    }


def test_one_number_stands_for_every_bucket():
    plan = BitPlan({"convs.0": [8, 4, 1], "lin": 2}, attention=[6, 5, 4], degree_splits=[4, 16])
    assert plan.num_buckets == 3
    assert list(plan.resolve(SITES).values()) == [
        (8, 4, 1), (32, 32, 32), (32, 32, 32), (2, 2, 2), (6, 5, 4)
    ]  # fmt: skip


def test_the_tail_of_one_name_may_be_the_whole_of_another():
    sites = [Site("convs.0", "features"), Site("encoder.convs.0", "features")]
    assert list(BitPlan({"convs.0": 4}).resolve(sites).values()) == [(4,), (32,)]


@pytest.mark.parametrize("number", [np.int64(4), torch.tensor(4)])
def test_integers_of_other_libraries_are_integers(number):
    assert BitPlan(number).features == 4
    assert type(BitPlan(number).features) is int
    assert BitPlan(4, degree_splits=np.array([2, 8])) == BitPlan(4, degree_splits=[2, 8])


@pytest.mark.parametrize("component", ["features", "attention"])
@pytest.mark.parametrize("spec", [lambda b: b, lambda b: [b], lambda b: {"convs.0": b}])
@pytest.mark.parametrize(
    ("bits", "error"),
    [
        (0, ValueError),
        (9, ValueError),
        (16, ValueError),
        (-1, ValueError),
        (2.5, TypeError),
        (torch.tensor(2.5), TypeError),
        (4.0, TypeError),
        (True, TypeError),
        ("4", TypeError),
        (None, TypeError),
    ],
)
def test_other_bits_are_refused(component, spec, bits, error):
    where = rf"{component}(\['convs.0'\])?={bits!r}".replace("(2.5000)", r"\(2.5000\)")
    with pytest.raises(
        error, match=rf"{where}: bits are .*1 (to|through) 8, or 32 for .*untouched"
    ):
        BitPlan(**{component: spec(bits)})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": [8, 4]}, ValueError,
         r"features=\[8, 4\] has 2 entries for 1 degree bucket.*set degree_splits to 1 ascending"),
        ({"features": {"a": [8]}, "degree_splits": [4]}, ValueError,
         r"features\['a'\]=\[8\] has 1 entries for 2 degree bucket"),
        ({"degree_splits": [16, 4]}, ValueError,
         r"degree_splits=\[16, 4\] must ascend; did you mean \[4, 16\]"),
        ({"degree_splits": [4, 4]}, ValueError, r"did you mean \[4\]"),
        ({"degree_splits": [0]}, ValueError, r"degree_splits=\[0\]: 0 is no degree"),
        ({"degree_splits": [2.5]}, ValueError, r"2.5 is no degree"),
        ({"degree_splits": 4}, TypeError, r"degree_splits=4 must be a list"),
        ({"degree_splits": "48"}, TypeError, r"degree_splits='48' must be a list"),
        ({"degree_quantiles": 0.5}, TypeError, r"degree_quantiles=0.5 must be a list"),
        ({"degree_quantiles": [0.9, 0.5]}, ValueError, r"quantiles=\[0.9, 0.5\] must ascend"),
        ({"degree_quantiles": [1.0]}, ValueError, r"strictly between 0 and 1"),
        ({"degree_quantiles": [float("nan")]}, ValueError, r"strictly between 0 and 1"),
        ({"degree_splits": [4], "degree_quantiles": [0.5]}, ValueError, r"exclude each other"),
        ({"features": {1: 4}}, TypeError, r"keys are module names or globs, got 1"),
        ({"features": {"": 4}}, TypeError, r"keys are module names or globs, got ''"),
    ],
)  # fmt: skip
def test_impossible_plans_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        BitPlan(**arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feature: 4", r"no field 'feature'. Did you mean 'features'\?"),
        ("4", r"A bit plan is a mapping of fields, got int"),
        ("", r"got NoneType"),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        BitPlan.from_yaml(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": {"conv.1": 4}},
         r"features\['conv.1'\]: no such layer. Did you mean .*convs.1.*are: model.convs.0,"),
        ({"features": {"onvs.0": 4}}, r"features\['onvs.0'\]: no such layer"),
        ({"features": {"block.*": 4}},
         r"features\['block.\*'\] matches no layer. There are: model.convs.0, "),
        ({"features": {"lin": 4, "model.lin": 2}}, r"features\['model.lin'\] names model.lin a se"),
        ({"attention": {"convs.0": 8}}, r"attention\['convs.0'\]: no such layer.*model.convs.1"),
    ],
)  # fmt: skip
def test_plans_for_other_models_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BitPlan(**arguments).resolve(SITES)


def test_a_tail_of_several_names_is_refused():
    sites = [Site("a.lin", "features"), Site("b.lin", "features")]
    with pytest.raises(ValueError, match=r"'lin'\] is ambiguous: a.lin, b.lin. .*glob '\*lin'"):
        BitPlan({"lin": 4}).resolve(sites)


@pytest.mark.parametrize("attention", [8, [8], {"*": 8}])
def test_attention_bits_need_attention(attention):
    with pytest.raises(ValueError, match=r"attention=.*8.*no attention layer. Leave .* at 32"):
        BitPlan(attention=attention).resolve(SITES[:2])


@pytest.mark.parametrize("attention", [32, [32], {}])
def test_untouched_attention_needs_none(attention):
    assert BitPlan(attention=attention).resolve(SITES[:1]) == {SITES[0]: (32,)}


def test_a_glob_may_be_the_tail_of_one():
    sites = [Site(f"net.convs.{k}", "features") for k in range(2)]
    table = BitPlan(features={"convs.*": 4}).resolve(sites)
    assert [table[site] for site in sites] == [(4,), (4,)]
