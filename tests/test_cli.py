import json
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import BasePredictionWriter
from torch_geometric.nn import GCN

from lit_gnncompress.cli import main
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.models import NodeClassifier

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
PLAN = {"features": {"*.convs.0": [8, 2], "convs.1": 4}, "degree_splits": [12]}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(plan=PLAN, finetuning=None, name="run.yaml", **sections):
    callbacks = [{"class_path": "lit_gnncompress.callbacks.Quantize", "init_args": {"plan": plan}}]
    if finetuning is not None:
        path = "lit_gnncompress.callbacks.QuantizationFinetuning"
        callbacks.append({"class_path": path, "init_args": finetuning})
    config = {
        "model": {"class_path": "NodeClassifier", "init_args": {"hidden_channels": 8}},
        "data": {"class_path": "GraphDataModule", "init_args": {"name": "digits"}},
        "trainer": QUIET | {"max_epochs": 2, "callbacks": callbacks},
    } | sections
    config["model"]["class_path"] = {"NodeClassifier": "lit_gnncompress.models.NodeClassifier"}.get(
        config["model"]["class_path"], config["model"]["class_path"]
    )
    config["data"]["class_path"] = "lit_gnncompress.data.GraphDataModule"
    Path(name).write_text(yaml.safe_dump(config))
    return name


def test_fit_quantizes_by_the_plan_of_the_file(capsys):
    main(["fit", "--config", write()])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.replace("│", " ").split() for line in lines if "convs." in line]
    assert [(row[0], row[2], row[5]) for row in rows] == [
        ("convs.0", "0–11", "8"),
        ("convs.0", "12+", "2"),
        ("convs.1", "0–11", "4"),
        ("convs.1", "12+", "4"),
    ]


def test_a_plan_can_be_given_on_the_command_line(capsys):
    quiet = [f"--trainer.{name}={str(value).lower()}" for name, value in QUIET.items()]
    callbacks = "--trainer.callbacks"
    plan = [f"{callbacks}+=lit_gnncompress.callbacks.Quantize", f"{callbacks}.plan={{features: 4}}"]
    main(["fit", "--data.name=digits", "--trainer.max_epochs=1", *quiet, *plan])
    assert "convs.1" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["for all commands", "as it is"])
def test_the_default_data_leave_no_trace_where_a_configuration_names_others(way, capsys):
    data = {"class_path": "lit_gnncompress.data.InteractionDataModule"}
    config = {"data": data, "model": {"class_path": "lit_gnncompress.models.Recommender"}}
    if way == "as it is":
        args = ["fit", "--config", yaml.safe_dump(config, default_flow_style=True, width=1e6)]
    else:
        Path("all.yaml").write_text(yaml.safe_dump({"fit": config}))
        args = ["--config", "all.yaml", "fit"]
    with pytest.raises(SystemExit):
        main([*args, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["init_args"]["name"] != "digits"


def test_a_checkpoint_that_is_not_there():
    with pytest.raises(SystemExit, match=r"--ckpt_path gone.ckpt: there is no such file"):
        main(["test", "--config", write(), "--ckpt_path", "gone.ckpt"])


def test_a_folder_is_wanted_before_the_fits():
    Path("taken").write_text("")
    with pytest.raises(SystemExit, match="--out taken is a file"):
        main(["compare", "--config", write(), "--seeds", "1", "--out", "taken"])


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_other_subcommands_are_quantized(subcommand, capsys):
    main([subcommand, "--config", write()])
    assert ("Bytes of features" in capsys.readouterr().out) == (subcommand == "test")


class Writer(BasePredictionWriter):
    """Writes predictions, as users are told to."""

    def write_on_epoch_end(self, trainer, pl_module, predictions, batch_indices):
        torch.save(predictions, "predictions.pt")


def test_predictions_go_to_a_callback_that_writes_them():
    config = yaml.safe_load(Path(write()).read_text())
    writer = {"class_path": f"{__name__}.Writer", "init_args": {"write_interval": "epoch"}}
    config["trainer"]["callbacks"].append(writer)
    Path("writing.yaml").write_text(yaml.safe_dump(config))
    main(["predict", "--config", "writing.yaml"])
    (predicted,) = torch.load("predictions.pt", weights_only=True)
    assert predicted.shape == (GraphDataModule("digits").data.num_nodes,)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"features": 9}, "bits are 1 to 8"),
        ({"features": {"convs.7": 4}}, "no such layer"),
        ({"features": 4, "attention": 4}, "no attention layer"),
        ({"features": [4, 2]}, "2 entries for 1 degree bucket"),
        ({"feature": 4}, "feature"),
    ],
)
def test_a_bad_plan_says_what_is_wrong(plan, message, capsys):
    with pytest.raises(SystemExit) as caught:  # and no traceback
        main(["fit", "--config", write(plan)])
    assert message in str(caught.value) + capsys.readouterr().err


def test_a_file_of_the_user_is_not_written_over():
    name = write(name="config.yaml")
    before = Path(name).read_text()
    main(["fit", "--config", name])
    assert Path(name).read_text() == before


def test_the_configuration_is_kept_beside_the_logs():
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "."}}
    main(["fit", "--config", write(), f"--trainer.logger={json.dumps(logger)}"])
    (kept,) = Path("lightning_logs").glob("*/config.yaml")
    callback = yaml.safe_load(kept.read_text())["trainer"]["callbacks"][0]
    assert callback["init_args"]["plan"]["features"] == PLAN["features"]
    assert callback["init_args"]["plan"]["degree_splits"] == PLAN["degree_splits"]


# --- compare ------------------------------------------------------------------------------------

FINETUNING = {"start_epoch": 2, "monitor": "val_acc", "mode": "max"}


def test_compare_writes_a_report(capsys):
    config = write(finetuning=FINETUNING, seed_everything=7)
    main(["compare", "--config", config, "--seeds", "2", "--trainer.max_epochs=4", "--out", "out"])
    report = json.loads(Path("out/report.json").read_text())
    assert [seed["seed"] for seed in report["seeds"]] == [0, 1]
    assert [seed["epochs"] for seed in report["seeds"]] == [4, 4]
    assert report["seeds"][0]["full_precision"] != report["seeds"][1]["full_precision"]
    assert report["plan"] == PLAN
    assert Path("out/report.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert "seed 1: test_acc" in out
    assert "test_acc of 2 seeds, paired" in out
    assert "report.json" in out


def test_compare_without_the_callbacks_says_so():
    with pytest.raises(SystemExit, match="needs a QuantizationFinetuning callback"):
        main(["compare", "--config", write(), "--seeds", "1"])


@pytest.mark.parametrize("seeds", ["0", "-1", "two"])
def test_compare_needs_a_number_of_seeds(seeds, capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--config", write(finetuning=FINETUNING), "--seeds", seeds])


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--help"], ["fit", "validate", "test", "predict"]),
        (["compare", "--help"], ["--seeds", "--metric", "--out", "--config"]),
    ],
)
def test_help_lists_what_there_is(args, words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert not [word for word in words if word not in out]


@pytest.mark.parametrize("args", [["--help"], ["test", "--help"], ["fit", "--nothing"]])
def test_usage_names_the_program_under_python_m_too(args, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["/somewhere/lit_gnncompress/__main__.py", *args])
    with pytest.raises(SystemExit):
        main()
    told = "".join(capsys.readouterr())
    assert told.startswith("usage: lit-gnncompress ")
    assert "__main__" not in told


# --- modules of the user's own ------------------------------------------------------------------


class Own(NodeClassifier):
    """Asks for nothing that the data know."""

    def __init__(self, hidden_channels: int = 4):
        super().__init__(in_channels=64, num_classes=10, hidden_channels=hidden_channels)


class OwnWidth(L.LightningModule):
    """Asks for the width of the features alone."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.net = GCN(in_channels, 4, 2, 10)

    def training_step(self, batch, batch_idx):
        out = self.net(batch.x, batch.edge_index)[batch.train_mask]
        return torch.nn.functional.cross_entropy(out, batch.y[batch.train_mask])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


@pytest.mark.parametrize("own", ["Own", "OwnWidth"])
def test_a_module_of_ones_own_need_not_take_what_the_data_know(own, capsys):
    main(["fit", "--config", write(model={"class_path": f"{__name__}.{own}"})])
    assert "convs.1" in capsys.readouterr().out


def test_other_classes_inherit_no_defaults(capsys):
    model, data = "lit_gnncompress.models.Recommender", "lit_gnncompress.data.InteractionDataModule"
    config = {"model": {"class_path": model}, "data": {"class_path": data}}
    Path("other.yaml").write_text(yaml.safe_dump(config))
    for given in (["--config", "other.yaml"], [f"--model={model}", f"--data={data}"]):
        with pytest.raises(SystemExit):
            main(["fit", *given, "--print_config"])
        own = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
        assert (own["name"], own["batch_size"]) == ("communities", 65536)
