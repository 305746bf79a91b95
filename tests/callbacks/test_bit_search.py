import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torchmetrics import MeanMetric

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import BitSearch, QuantizationFinetuning, Quantize
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from lit_gnncompress.models import NodeClassifier
from tests.callbacks.searches import Accurate, accurate, bit_search, run, told
from tests.callbacks.tiny import make_graph, make_trainer, same, weights_of

ROOT = Path(__file__).parents[2]


def loader():
    return FullGraphLoader(make_graph(200))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("search")
    search = bit_search(folder)
    return search, *run(search), folder


# --- what is left -------------------------------------------------------------------------------


def test_the_module_is_quantized_by_the_best_plan(searched):
    search, trainer, module, quantize, _ = searched
    best = search.best
    assert best is not None
    assert quantize.plan == best.plan
    assert quantize.enabled
    assert trainer.test(module, loader(), verbose=False)
    assert quantize.ledger.saving_paper_count == pytest.approx(best.saving)
    assert module.trainer is trainer


def test_its_weights_are_those_that_scored(searched):
    search, trainer, module, _, _ = searched
    score = trainer.validate(module, loader(), verbose=False)[0]["val_acc"]
    assert score == pytest.approx(search.best.accuracy, abs=1e-6)
    assert search.best.finetuned is not None
    assert search.best.drop <= 0.02 + 1e-9


def test_all_trials_are_told(searched):
    search, *_ = searched
    assert len(search.trials) == 10
    assert len({trial.plan for trial in search.trials}) == 10
    assert search.result.baseline == pytest.approx(search.full_precision_score)
    assert {trial.plan.degree_splits for trial in search.trials} == {(5,)}


def test_attention_may_stay_as_it_is(tmp_path):
    data = GraphDataModule("digits")
    module = NodeClassifier(
        "gat",
        in_channels=data.num_features,
        num_classes=data.num_classes,
        hidden_channels=8,
        heads=2,
    )
    search = BitSearch(
        "val_acc", "max", trials=3, max_drop=1.0, finetune_epochs=0, bits=(4, 8),
        attention_bits=(8, 32), dirpath=str(tmp_path), verbose=False,
    )  # fmt: skip
    make_trainer(Quantize(BitPlan(), verbose=False), search, max_epochs=1).fit(module, data)
    spent = {tuple(trial.plan.attention.values()) for trial in search.trials}
    assert {(8, 8), (32, 32)} <= spent
    space = search.result.space
    by_site = {
        s.site.component: d.choices for s, d in zip(space.sites, space.dimensions, strict=True)
    }
    assert by_site == {"features": (4, 8), "attention": (8, 32)}


def test_the_files(searched):
    search, _, module, _, folder = searched
    names = {path.name for path in folder.iterdir()}
    assert names == {"trials.jsonl", "best.pt", "search.json", "trials.csv", "search.png"}
    document = json.loads((folder / "search.json").read_text())
    assert document["best"]["number"] == search.best.number
    assert len((folder / "trials.csv").read_text().splitlines()) == 11
    saved = torch.load(folder / "best.pt", weights_only=True)
    assert BitPlan.from_dict(saved["plan"]) == search.best.plan
    assert same(saved["state_dict"], weights_of(module))


def test_the_fit_is_in_full_precision_and_its_best_epoch_counts(tmp_path):
    seen = []

    class Look(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            quantize = trainer.callbacks[0]
            seen.append((quantize.enabled, float(trainer.callback_metrics["val_acc"])))

    search = bit_search(tmp_path, trials=1)
    quantize = Quantize(BitPlan(features=1), verbose=False)
    trainer = make_trainer(quantize, search, Look(), max_epochs=12)
    trainer.fit(accurate(optimizer=lambda p: torch.optim.SGD(p, lr=3.0)), loader(), loader())
    assert not any(enabled for enabled, _ in seen)
    assert search.full_precision_score == max(score for _, score in seen)


def test_nothing_of_the_outer_fit_is_disturbed(tmp_path):
    torch.manual_seed(0)
    module, search = accurate(), bit_search(tmp_path / "s", trials=4)
    checkpoint = ModelCheckpoint(tmp_path / "c", monitor="val_acc", mode="max")
    stopping = EarlyStopping("val_acc", mode="max", patience=100)
    quantize = Quantize(BitPlan(), verbose=False)
    trainer = make_trainer(
        quantize, search, checkpoint, stopping, max_epochs=3, enable_checkpointing=True
    )
    trainer.fit(module, loader(), loader())
    assert trainer.current_epoch == 3
    assert trainer.global_step == 3
    assert len(list((tmp_path / "c").iterdir())) == 1
    assert quantize.verbose is False
    assert "configure_callbacks" not in vars(module)
    assert module.accuracy.distributed_available_fn.__name__ != "_never"


def test_random_numbers_go_on_as_if_there_was_no_search(tmp_path):
    drawn = []
    for search in ([], [bit_search(tmp_path, trials=4)]):
        L.seed_everything(1, verbose=False)
        trainer = make_trainer(Quantize(BitPlan(), verbose=False), *search, max_epochs=2)
        trainer.fit(accurate(), loader(), loader())
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1]


def test_a_fit_of_no_epochs_searches_for_a_trained_module(tmp_path):
    module = accurate()
    make_trainer(max_epochs=10).fit(module, loader(), loader())
    trained = weights_of(module)
    search = bit_search(tmp_path, trials=4, finetune_epochs=0)
    run(search, module, epochs=0)
    assert len(search.trials) == 4
    assert same(trained, weights_of(module))


def test_the_plan_of_quantize_is_tried(tmp_path):
    search = bit_search(tmp_path, trials=5)
    run(search, plan=BitPlan({"convs.0": 2, "convs.1": 8}))
    recipe = [trial for trial in search.trials if trial.origin == "recipe"]
    assert [trial.point for trial in recipe] == [(2, 8)]


def test_more_checkpoints_are_averaged(tmp_path):
    other = accurate(seed=2)
    trainer = make_trainer(max_epochs=10)
    trainer.fit(other, loader(), loader())
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    alone = [float(trainer.callback_metrics["val_acc"])]
    search = bit_search(tmp_path / "s", trials=2, checkpoints=[tmp_path / "other.ckpt"])
    run(search)
    alone.append(search.full_precision_score)
    assert search.result.baseline == pytest.approx(sum(alone) / 2)


def test_all_bytes_are_counted_where_asked(tmp_path):
    search = bit_search(tmp_path, count="stored", trials=6, finetune_epochs=0, group="site")
    trainer, module, quantize = run(search, plan=BitPlan())
    best = search.best
    trainer.test(module, loader(), verbose=False)
    if 32 not in best.point:
        assert quantize.ledger.bytes_real == best.bytes
    assert best.bytes < search.result.space.bytes_fp32


def test_the_data_may_be_the_modules_own(tmp_path):
    class Own(Accurate):
        def train_dataloader(self):
            return loader()

        val_dataloader = train_dataloader

    search = bit_search(tmp_path, trials=4)
    quantize = Quantize(BitPlan(), verbose=False)
    make_trainer(quantize, search, max_epochs=3).fit(Own())
    assert len(search.trials) == 4


def test_packed_features_do_not_lose_the_inputs(tmp_path):
    graph = make_graph(200)
    before = graph.x.clone()
    search = bit_search(tmp_path, trials=6)
    quantize = Quantize(BitPlan(), packed=True, verbose=False)
    trainer, module = make_trainer(quantize, search, max_epochs=3), accurate()
    trainer.fit(module, FullGraphLoader(graph), FullGraphLoader(graph))
    assert torch.equal(graph.x, before)
    assert quantize.packed
    assert trainer.test(module, FullGraphLoader(graph), verbose=False)


class InPlace(Accurate):
    """Adds to the state of its metric in place."""

    def __init__(self):
        super().__init__()
        self.mean = MeanMetric()

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.mean.update(self.accuracy.compute())
        self.log("mean_acc", self.mean, batch_size=1)


@pytest.mark.parametrize("inference_mode", [True, False])
def test_metrics_may_add_in_place(inference_mode, tmp_path):
    search = BitSearch("mean_acc", "max", 2, finetune_epochs=1, dirpath=str(tmp_path))
    run(search, InPlace(), epochs=2, inference_mode=inference_mode)
    assert any(trial.finetuned is not None for trial in search.trials)


# --- interruption -------------------------------------------------------------------------------


def start(folder, devices=1, sleep=0.0):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.callbacks.searches", str(folder), str(devices), str(sleep)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process, folder, devices=1):
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output[-3000:]
    names = [f"rank{rank}of{devices}.json" for rank in range(devices)]
    return [json.loads((folder / name).read_text()) for name in names]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return finished(start(folder, sleep=0.5), folder)[0]


def test_kill_9_and_again_ends_like_the_whole(alone, tmp_path):
    part = tmp_path / "part"
    process = start(part, sleep=0.05)
    path = part / "search" / "trials.jsonl"
    deadline = time.monotonic() + 240
    while not path.exists() or path.read_bytes().count(b"\n") < 7:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lines = path.read_bytes().count(b"\n")
    path.write_bytes(path.read_bytes() + b'{"stage": "measured", "tri')
    [resumed] = finished(start(part), part)
    assert path.read_bytes().count(b"\n") > lines
    slept = {"slept": []}
    assert resumed | slept == alone | slept


@pytest.mark.parametrize("lost", [[], ["best.pt"]])
def test_a_search_that_ended_is_replayed(searched, lost, monkeypatch):
    first, trainer, module, quantize, folder = searched
    before = told(first, trainer, module, quantize)
    for name in lost:
        (folder / name).unlink()
    again = bit_search(folder)
    fits = []
    monkeypatch.setattr(Accurate, "on_fit_start", lambda self: fits.append(1), raising=False)
    assert told(again, *run(again)) == before
    assert len(fits) == 1 + len(lost)  # the outer fit, and the weights that are made again


def test_weights_of_another_fit_are_refused(searched):
    folder = searched[-1]
    search = bit_search(folder)
    with pytest.raises(ValueError, match="another search, which differs in about: weights"):
        run(search, accurate(seed=7))


def test_other_data_are_another_space(searched):
    search = bit_search(searched[-1])
    with pytest.raises(ValueError, match="differs in space"):
        run(search, nodes=210)
    assert search.result is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_drop": 0.1}, r"settings: max_drop 0\.02 there, 0\.1 here"),
        ({"finetune_epochs": 0}, "settings: finetune true there, false here"),
        ({"finetune_epochs": 1}, "about: finetune_epochs 2 there, 1 here"),
        ({"lr_scale": 1.0}, "about: lr_scale"),
        ({"bits": (2, 8)}, r"about: bits \[1, 2, 4, 8\] there, \[2, 8\] here"),
        ({"group": "all"}, 'about: group "auto" there, "all" here'),
        ({"count": "stored"}, 'about: count "paper" there, "stored" here'),
        ({"n_measured": 5}, "settings: n_measured"),
        ({"n_sampled": 5}, "settings: n_sampled"),
        ({"seed": 1}, "settings: seed"),
        ({"plan": BitPlan(features=4, degree_splits=[5])}, "settings: recipe features"),
    ],
)
def test_other_settings_are_refused_before_the_fit(arguments, message, searched):
    plan = {"plan": arguments.pop("plan")} if "plan" in arguments else {}
    module = accurate()
    before = weights_of(module)
    with pytest.raises(ValueError, match=f"another search, which differs in .*{message}"):
        run(bit_search(searched[-1], **arguments), module, **plan)
    assert same(before, weights_of(module))


def test_more_trials_go_on_with_the_same_file(searched, tmp_path):
    folder = Path(shutil.copytree(searched[-1], tmp_path / "more"))
    search = bit_search(folder, trials=11)
    run(search)
    assert search.trials[:10] == searched[0].trials
    assert len(search.trials) == 11


def test_another_module_is_refused_before_the_fit(searched):
    from torch_geometric.nn import GCN

    module = accurate(net=GCN(8, 4, 2, 3))
    before = weights_of(module)
    with pytest.raises(ValueError, match="differs in about: parameters"):
        run(bit_search(searched[-1]), module)
    assert same(before, weights_of(module))


def test_the_best_weights_survive_a_resumed_fit(tmp_path):
    search = bit_search(tmp_path, trials=1)
    search.full_precision_score, search._full_precision = 0.5, {"w": torch.ones(1)}
    other = bit_search(tmp_path, trials=1)
    other.load_state_dict(search.state_dict())
    assert other.full_precision_score == 0.5
    assert torch.equal(other._full_precision["w"], torch.ones(1))


# --- several processes --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return finished(start(folder, 2, sleep=0.5), folder, 2), folder


def test_both_processes_end_alike(two):
    own = {"rank": 0, "slept": [], "unsynchronised": ""}
    first, second = two[0]
    assert first | own == second | own
    assert first["best"] is not None


def test_two_processes_measure_what_one_does(two, alone):
    first = two[0][0]
    assert first["trials"] == alone["trials"]
    assert first["best"] == alone["best"]
    for name, value in alone["weights"].items():
        torch.testing.assert_close(torch.tensor(first["weights"][name]), torch.tensor(value))


def test_each_trial_is_measured_once(two):
    lines = (two[1] / "search" / "trials.jsonl").read_text().splitlines()[1:]
    measured = [(line["stage"], line["trial"]) for line in map(json.loads, lines)]
    assert len(measured) == len(set(measured))
    assert sum(stage == "measured" for stage, _ in measured) == 10


def test_two_processes_measure_at_the_same_time(two, alone):
    first, second = (rank["slept"] for rank in two[0])
    assert max(len(first), len(second)) < len(alone["slept"])
    assert any(a < d and c < b for a, b in first for c, d in second)


def test_a_monitor_that_is_not_synchronised(two):
    for rank in two[0]:
        message = rank["unsynchronised"]
        assert "Misconfiguration" in message
        assert "'mine' differs between processes (0.5, 1.5)" in message
        assert "sync_dist=True" in message


# --- bad input ----------------------------------------------------------------------------------


def test_an_unknown_monitor_names_those_that_are_logged(tmp_path):
    search = BitSearch("val_accuracy", "max", dirpath=str(tmp_path))
    with pytest.raises(MisconfigurationException, match=r"'val_accuracy'.*val_acc, val_loss"):
        run(search)
    with pytest.raises(MisconfigurationException, match=r"'val_accuracy'.*val_acc, val_loss"):
        run(BitSearch("val_accuracy", "max", dirpath=str(tmp_path)), epochs=0)


def test_a_bound_that_even_the_highest_bits_miss(tmp_path):
    class Strict(Accurate):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            lost = 0.5 * self.trainer.callbacks[0].enabled
            self.log("score", 0.9 - lost, batch_size=1)

    search = BitSearch("score", "max", trials=8, n_measured=4, dirpath=str(tmp_path))
    module = Strict()
    with pytest.warns(UserWarning, match=r"not even the highest bits.*0\.5.*full precision"):
        trainer, module, quantize = run(search, module, plan=BitPlan(features=4))
    assert search.best is None
    assert len(search.trials) == 4
    assert not quantize.enabled
    assert quantize.plan == BitPlan(features=4)
    assert json.loads((tmp_path / "search.json").read_text())["best"] is None
    assert trainer.test(module, loader(), verbose=False)
    assert not quantize.ledger.rows


def test_training_that_diverges_is_a_bad_trial(tmp_path):
    rates = iter([0.02] + [1e30] * 100)

    def optimizer(parameters):
        return torch.optim.SGD(parameters, lr=next(rates))

    search = bit_search(tmp_path, max_drop=0.0, lr_scale=1.0)
    run(search, accurate(optimizer=optimizer))
    assert all(math.isfinite(trial.accuracy) for trial in search.trials)


def test_fast_dev_run_skips(tmp_path):
    search = bit_search(tmp_path)
    with pytest.warns(UserWarning, match="the bit search is skipped"):
        run(search, fast_dev_run=True)
    assert search.best is None
    assert search.trials == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_strategies_that_start_processes_for_one_fit(strategy, tmp_path):
    search = bit_search(tmp_path)
    trainer = make_trainer(Quantize(BitPlan()), search, strategy=strategy, devices=2)
    with pytest.raises(MisconfigurationException, match=r"ddp_spawn.*strategy='ddp'"):
        search.setup(trainer, accurate(), "fit")


def test_a_search_without_validation(tmp_path):
    with pytest.raises(MisconfigurationException, match="limit_val_batches=0 runs none"):
        make_trainer(Quantize(BitPlan()), bit_search(tmp_path), limit_val_batches=0).fit(
            accurate(), loader(), loader()
        )


def test_a_test_of_weights_from_before_the_search_is_told(searched, tmp_path):
    search, trainer, module, *_ = searched
    path = tmp_path / "before.ckpt"
    trainer.save_checkpoint(path)
    before = torch.load(path, weights_only=True)
    before["callbacks"][search.state_key]["searched"] = False
    torch.save(before, path)
    with pytest.warns(UserWarning, match="of the fit before the bit search"):
        trainer.test(module, loader(), ckpt_path=path, verbose=False)


def test_quantize_is_needed(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"Quantize\(BitPlan\(\)\)"):
        make_trainer(bit_search(tmp_path)).fit(accurate(), loader(), loader())


def test_finetuning_is_refused(tmp_path):
    callbacks = [
        Quantize(BitPlan()),
        bit_search(tmp_path),
        QuantizationFinetuning(start_epoch=1),
    ]
    with pytest.raises(MisconfigurationException, match="leave QuantizationFinetuning out"):
        make_trainer(*callbacks).fit(accurate(), loader(), loader())


def test_averaged_weights_are_refused(tmp_path):
    averaging = StochasticWeightAveraging(swa_lrs=0.01)
    trainer = make_trainer(Quantize(BitPlan()), bit_search(tmp_path), averaging)
    message = "BitSearch keeps .* StochasticWeightAveraging averages .* with max_epochs=0"
    with pytest.raises(MisconfigurationException, match=message):
        trainer.fit(accurate(), loader(), loader())


def test_an_error_leaves_the_module_in_full_precision(tmp_path, monkeypatch):
    def broken(self, *args):
        raise KeyError("of the user's making")

    monkeypatch.setattr("lit_gnncompress.callbacks.inner_fits.InnerFits.finetuned", broken)
    module, search = accurate(), bit_search(tmp_path, max_drop=0.0)
    quantize = Quantize(BitPlan(features=4), verbose=False)
    trainer = make_trainer(quantize, search, max_epochs=10)
    with pytest.raises(KeyError, match="user"):
        trainer.fit(module, loader(), loader())
    assert not quantize.enabled
    assert quantize.plan == BitPlan(features=4)
    assert same(weights_of(module), search._full_precision)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "highest"}, "mode='highest'"),
        ({"trials": 0}, "trials=0"),
        ({"max_drop": -1}, "max_drop=-1"),
        ({"finetune_epochs": -1}, "finetune_epochs=-1"),
        ({"lr_scale": 0}, "lr_scale=0"),
        ({"bits": (0, 4)}, "0"),
        ({"attention_bits": ()}, "attention_bits is empty"),
        ({"group": "node"}, "group='node'"),
        ({"count": "real"}, "count='real'"),
        ({"checkpoints": "a.ckpt"}, "list of files"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BitSearch(**{"monitor": "val_acc", "mode": "max"} | arguments)


def test_a_checkpoint_without_weights(tmp_path):
    torch.save({"a": 1}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="no state_dict"):
        run(bit_search(tmp_path, checkpoints=[tmp_path / "a.ckpt"]), epochs=1)
