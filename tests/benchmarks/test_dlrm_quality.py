"""Tables of categories are compared at equal sizes, fairly, and the table says who wins."""

import argparse
import json
from dataclasses import replace

import pytest
import torch

from benchmarks import dlrm_quality
from benchmarks.click_fits import ClickFits
from benchmarks.click_orders import make_order, spectral_order
from benchmarks.click_plans import Plan
from benchmarks.click_tables import (
    DIM,
    NAMES,
    HashedRows,
    HotRows,
    Method,
    QuotientRemainder,
    make_table,
    num_parameters,
    train_shape,
)
from benchmarks.click_training import SOURCES, Setting
from benchmarks.dlrm_quality import HOT_RANKS, ORDERS, RANKS, table
from benchmarks.output import Output
from lit_gnncompress.data import CriteoDataModule, TableBatch
from lit_gnncompress.data.clicks import clicks
from lit_gnncompress.embedding import NodeOrder, TTEmbedding

SETTING = Setting(lr=0.01, weight_decay=1e-5, std=0.1)
SIZE = 3000


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    made = clicks(5000, num_dense=4, num_embeddings=(1000, 500, 20, 10))
    monkeypatch.setattr(CriteoDataModule, "_generated", lambda self: made)


@pytest.fixture
def batch():
    """Categories 0 to 39 in two groups, even and odd, that occur with different ones."""
    random = torch.Generator().manual_seed(0)
    own = torch.randint(40, (2000,), generator=random)
    other = torch.randint(10, (2000,), generator=random) * 2 + own % 2
    label = torch.rand(2000, generator=random).round()
    return TableBatch(torch.empty(2000, 0), torch.stack([own, other], 1), label)


def order_of(shape, place=None):
    place = torch.arange(SIZE).flip(0) if place is None else place
    return NodeOrder(shape.rows, place, "by hand")


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tt", "tt+hot", "product", "sum", "hash"])
@pytest.mark.parametrize("rank", [8, 16])
def test_tables_of_a_rank_have_equal_sizes(kind, rank):
    shape = train_shape(SIZE, rank)
    torch.manual_seed(0)
    made = make_table(Method(kind, rank), SIZE, order_of(shape), torch.arange(SIZE), std=0.1)
    assert 0 <= shape.num_parameters - num_parameters(made) < 2 * DIM
    rows = made(torch.arange(SIZE))
    assert rows.shape == (SIZE, DIM)
    assert rows.detach().square().mean().sqrt() == pytest.approx(0.1, rel=0.3)
    rows.sum().backward()
    assert all(each.grad is not None for each in made.parameters())


def test_a_table_that_would_not_shrink_stays_full():
    assert train_shape(20, 8) is None
    assert train_shape(SIZE, 0) is None
    assert isinstance(
        make_table(Method("tt", 8), 20, None, torch.ones(20), 0.1), torch.nn.Embedding
    )


@pytest.mark.parametrize("operation", ["product", "sum"])
@pytest.mark.parametrize("size", [20, 200])
def test_quotient_and_remainder_tell_categories_apart(operation, size):
    made = QuotientRemainder(torch.randperm(SIZE), size, operation, 0.1)
    place = made.place
    both = torch.stack([place // made.divisor, place % made.divisor])
    assert both.unique(dim=1).size(1) == SIZE
    expected = made.remainders[both[1]]
    quotient = made.quotients[both[0]]
    expected = expected * quotient if operation == "product" else expected + quotient
    assert torch.equal(made(torch.arange(SIZE)), expected)
    rows = len(made.remainders) + len(made.quotients)
    assert rows <= size or rows <= 2 * SIZE**0.5 + 2


def test_hashing_shares_rows():
    place = torch.arange(10).flip(0)
    made = HashedRows(place, 4, 0.1)
    assert torch.equal(made(torch.arange(10)), made.weight[place % 4])


def test_frequent_categories_have_vectors_of_their_own():
    shape = train_shape(SIZE, 8)
    counts = torch.zeros(SIZE, dtype=torch.long)
    counts[[7, 5]] = torch.tensor([9, 10])
    size = train_shape(SIZE, 4).num_parameters // DIM + 1 + 2
    made = HotRows(SIZE, size, 4, order_of(shape), counts, 0.1)
    out = made(torch.tensor([5, 6, 7]))
    assert torch.equal(out[[0, 2]], made.weight)
    assert torch.equal(out[1], made.cold(torch.tensor(6)))
    (made(torch.tensor([5])).sum()).backward()
    assert made.weight.grad.nonzero()[:, 0].unique().tolist() == [0]
    assert all(core.grad.eq(0).all() for core in made.cold.cores)


# --- orders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["cooccurrence", "clicked", "spectral"])
def test_categories_that_occur_together_lie_together(batch, order):
    made = make_order(order, batch, 0, (40, 20), (2, 20), seed=0)
    side = made.parts(1)
    assert len(side[0::2].unique()) == len(side[1::2].unique()) == 1
    assert side[0] != side[1]
    again = make_order(order, batch, 0, (40, 20), (2, 20), seed=0)
    assert torch.equal(made.place, again.place)


def test_orders_by_number_and_by_frequency(batch):
    assert make_order("none", batch, 0, (40, 20), (5, 8), 0).place.tolist() == list(range(40))
    made = make_order("frequency", batch, 0, (40, 20), (5, 8), 0)
    counts = batch.sparse[:, 0].bincount(minlength=40)
    assert counts[made.node].diff().le(0).all()


def test_a_spectral_order_takes_categories_that_never_occur(batch):
    made = spectral_order(batch.sparse, 0, (64, 20), (4, 4, 4), seed=0)
    assert made.place.sort().values.tolist() == list(range(64))


# --- fits -----------------------------------------------------------------------------------------


def make_fits(path=None, epochs=3):
    return ClickFits("clicks", None, path, epochs)


@pytest.mark.parametrize("kind", ["full", "tt", "product"])
def test_a_fit_learns_and_is_the_same_again(kind):
    method = Method(kind, 0 if kind == "full" else 4, "none" if kind == "full" else "frequency")
    first = make_fits(epochs=12)(method, SETTING, seed=1, test=True)
    again = make_fits(epochs=12)(method, SETTING, seed=1, test=True)
    same = ("val_auc", "test_auc", "test_loss", "epochs", "tables", "parameters")
    assert all(getattr(first, name) == getattr(again, name) for name in same)
    assert first.test_auc > 0.7
    assert make_fits(epochs=12)(method, SETTING, seed=2, test=True).test_auc != first.test_auc


def test_seeds_in_a_row_test_all_rows_once():
    fits = make_fits()
    labels = [fits._parts(seed)[2].dense for seed in range(5)]
    number = len(fits.rows()[0].label)
    assert torch.cat(labels).unique(dim=0).size(0) == number


def test_test_rows_are_not_looked_at_before_they_should():
    fit = make_fits(epochs=1)(Method("full"), SETTING, seed=1)
    assert fit.test_auc is fit.test_loss is None


def test_tables_that_gain_are_replaced():
    model = make_fits().model(Method("tt", 4, "none"), 0.1, seed=0)
    sizes = [table.num_embeddings for table in model.embeddings if isinstance(table, TTEmbedding)]
    assert sizes == [n for n in make_fits().rows()[1] if train_shape(n, 4) is not None]
    assert sizes


# --- the whole ------------------------------------------------------------------------------------


def test_a_whole_run_tunes_tests_once_and_goes_on(tmp_path, monkeypatch):
    settings = dict.fromkeys(NAMES, (SETTING,))
    plan = Plan({**settings, "tt": (SETTING, replace(SETTING, lr=0.003))}, 1, 2)
    monkeypatch.setattr(dlrm_quality, "PLANS", {"clicks": plan})
    monkeypatch.setitem(SOURCES, "iPinYou", SOURCES["clicks"])
    monkeypatch.setattr(dlrm_quality, "ORDERS", {"tt": ("none", "spectral"), "hash": ("none",)})
    monkeypatch.setattr(CriteoDataModule, "known", _Known())
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=lambda text: tmp_path / text)
    dlrm_quality.add_arguments(parser)
    picture = f"--picture={tmp_path / 'out.png'}"
    args = parser.parse_args(
        ["--json=out.json", "--ranks", "4", "8", "--seeds=1", "--epochs=1", picture]
    )
    planned, done = [], []
    number = dlrm_quality._number_of_fits
    monkeypatch.setattr(
        dlrm_quality, "_number_of_fits", lambda *a: planned.append(number(*a)) or planned[0]
    )
    call = ClickFits.__call__
    monkeypatch.setattr(ClickFits, "__call__", lambda *a, **k: done.append(a) or call(*a, **k))
    output = Output("dlrm_quality", table, args.json)
    dlrm_quality.run(args, output)
    assert planned == [len(done)]

    tested = [row for row in output.rows if row["dataset"] == "clicks"]
    kinds = ["full", "tt", "tt", "tt", "tt+hot", "hash", "hash"]
    assert [row["kind"] for row in tested] == kinds
    assert sum(row["chosen"] for row in tested if row["kind"] == "tt") == 2  # of each rank one
    for row in json.loads(args.json.read_text())["rows"]:
        assert row["reduction"] == row["params_full"] / row["params"]
    for row in tested:
        assert len(row["aucs"]) == 2
        assert row["delta"] == pytest.approx(row["auc"] - tested[0]["auc"])
    sizes = [row for row in output.rows if row["dataset"] == "iPinYou"]
    assert [row["kind"] for row in sizes] == ["full", "tt", "tt", "hash", "hash"]
    assert all(row["step_ratio"] > 0 for row in sizes)
    assert args.picture.stat().st_size > 1000

    fits = args.json.with_suffix(".fits.jsonl").read_text().splitlines()
    keys = [json.loads(line)["key"] for line in fits]
    assert {key["seed"] for key in keys if not key["test"]} == {dlrm_quality.TUNING_SEED}
    assert {key["seed"] for key in keys if key["test"]} == {0, 1}
    monkeypatch.setattr(ClickFits, "_fit", lambda *_: pytest.fail("fitted twice"))
    again = Output("dlrm_quality", table)
    dlrm_quality.run(args, again)
    assert [row["aucs"] for row in again.rows[: len(tested)]] == [row["aucs"] for row in tested]


class _Known:
    """Every data set is the generated one."""

    def canonical(self, name):
        return "clicks"


def a_row(kind, rank, auc, **more):
    deltas = [auc - 80.0 - 0.1, auc - 80.0 + 0.1]
    reduction = {0: 1.0, 4: 30.0, 8: 12.0, 16: 4.0}[rank]
    return {
        "dataset": "Frappe", "method": f"{kind} {rank}", "kind": kind, "rank": rank,
        "order": "frequency", "chosen": True, "params_full": 12000, "params": 1000,
        "reduction": reduction, "model_reduction": reduction / 2, "auc": auc, "auc_ci95": 0.1,
        "delta": auc - 80.0, "delta_ci95": 0.1, "loss": 0.3, "loss_ci95": 0.1, "loss_delta": 0.0,
        "loss_delta_ci95": None, "aucs": [80.0 + d for d in deltas], "val_auc": auc,
        "setting": {"lr": 0.01, "weight_decay": 0.0, "std": 0.1}, "epochs": 4.0,
    } | more  # fmt: skip


FULL = a_row("full", 0, 80.0)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([FULL, a_row("tt", 8, 79.8)], "(-0.20 ± 0.10) at 12.0×, rank 8: goal of 10× reached"),
        ([FULL, a_row("tt", 8, 79.6), a_row("tt", 16, 79.9)], "4.0×, rank 16: goal of 10× missed"),
        ([FULL, a_row("tt", 8, 79.0)], "within 0.3 points of the full tables; the best loses 1.00"),
        # Orders that validation does not prefer do not count.
        ([FULL, a_row("tt", 16, 79.9), a_row("tt", 4, 80.0, chosen=False)], "at 4.0×, rank 16"),
        ([FULL, a_row("tt", 8, 79.8), a_row("hash", 8, 79.0)], "+0.80 ± 0.00 to hashing"),
        # Validation chooses the rival, whatever was tested best.
        (
            [FULL, a_row("tt", 8, 79.8), a_row("hash", 8, 79.7, val_auc=1), a_row("sum", 8, 79.0)],
            "+0.80 ± 0.00 to quotient + remainder",
        ),
        ([FULL, a_row("tt", 8, 79.8), a_row("tt+hot", 8, 79.6)], "-0.20 ± 0.00 to TT alone"),
    ],
)  # fmt: skip
def test_verdict(rows, verdict):
    assert verdict in table(rows)


def test_lines_have_as_many_fields():
    size = {"dataset": "iPinYou", "kind": "tt", "rank": 8, "params": 10, "reduction": 2.0}
    size |= {"model_reduction": 1.5, "auc": None, "step_ratio": 1.1}
    text = table([FULL, a_row("tt", 8, 79.8, delta_ci95=None), size])
    first, second = [
        [line for line in part.splitlines() if line.startswith("|")]
        for part in text.split("Sizes and the time")
    ]
    assert (len(first), len(second)) == (4, 3)
    for lines in (first, second):
        assert len({line.count("|") for line in lines}) == 1


def test_ranks_of_hot_rows_are_measured_without_them():
    assert set(HOT_RANKS) <= set(RANKS)
    assert {"tt", "product", "sum", "hash"} == set(ORDERS)
