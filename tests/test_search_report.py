import csv
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from lit_gnncompress import BitPlan
from lit_gnncompress.search import search
from lit_gnncompress.search_report import (
    _bucket_names,
    best_so_far,
    pareto_front,
    plot_search,
    print_search,
    write_search_report,
)
from tests.search import problems

SPACE = problems.space()


def run(**settings):
    recipe = BitPlan({"convs.0": 2, "convs.*": 8}, 8)
    problem = problems.Additive(SPACE)
    return search(SPACE, problem, trials=24, **{"recipe": recipe} | settings)


@pytest.fixture(scope="module")
def found():
    return run()


def test_the_files_say_what_was_found(found, tmp_path):
    random = run(method="random")
    paths = write_search_report(found, tmp_path / "new", random)
    assert [path.name for path in paths] == ["search.json", "trials.csv", "search.png"]
    document = json.loads(paths[0].read_text())
    assert len(document["trials"]) == len(document["random"]["trials"]) == 24
    assert BitPlan.from_dict(document["best"]["plan"]) == found.best.plan
    rows = list(csv.DictReader(paths[1].open()))
    assert [float(row["saving"]) for row in rows] == [trial.saving for trial in found.trials]
    assert int(rows[3]["convs.0 features, bucket 0"]) == found.trials[3].point[0]
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "new").iterdir())) == 3


def test_nothing_beats_the_front(found):
    front = pareto_front(found.trials)
    assert front
    for trial in found.trials:
        for one in front:
            at_least = trial.saving >= one.saving and trial.drop <= one.drop
            assert not at_least or (trial.saving, trial.drop) == (one.saving, one.drop)
    savings = [trial.saving for trial in front]
    assert savings == sorted(savings, reverse=True)


def test_best_so_far_grows_to_the_best(found):
    savings = best_so_far(found)
    assert savings == sorted(savings)
    assert savings[-1] == found.best.saving


def test_nothing_within_bounds(tmp_path):
    nothing = run(max_drop=0.0, recipe=None)
    assert nothing.best is None
    plot_search(nothing, tmp_path / "plot.png")
    console = Console(record=True, width=100)
    print_search(nothing, console=console)
    assert "none of 8 plans is within max_drop=0" in console.export_text()


def test_the_table(found):
    console = Console(record=True, width=100)
    print_search(found, "val_acc", console=console)
    text = console.export_text()
    assert "convs.0" in text
    assert f"{found.best.saving:.1f}× (paper's count" in text
    bits = found.best.plan.resolve([size.site for size in SPACE.sites])
    spent = [of if len(set(of)) > 1 else of[:1] for of in bits.values()]
    assert all(" / ".join(map(str, of)) in text for of in spent)


@pytest.mark.parametrize(
    ("degrees", "names"),
    [
        ({"degree_splits": (4, 16)}, ["0–3", "4–15", "16+"]),
        ({"degree_quantiles": (0.5, 0.875)}, ["≤ 50 %", "≤ 87.5 %", "> 87.5 %"]),
    ],
)
def test_columns_of_the_plot_tell_which_nodes(degrees, names):
    best = SimpleNamespace(plan=BitPlan([8, 4, 2], 8, **degrees))
    assert _bucket_names(best, 3) == names
    assert _bucket_names(best, 1) == ["all nodes"]
