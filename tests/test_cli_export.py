import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lit_gnncompress import BitPlan, load_compressed
from lit_gnncompress.cli import main
from lit_gnncompress.data import CriteoDataModule, GraphDataModule
from lit_gnncompress.embedding import TTEmbedding
from lit_gnncompress.quantization.calibration import to_plain

PLAN = {"features": {"convs.0": [8, 2], "convs.1": 4}, "degree_splits": [12]}


def configuration(**trainer):
    quantize = {"plan": PLAN, "packed": True, "verbose": False}
    return {
        "model": {
            "class_path": "lit_gnncompress.models.NodeClassifier",
            "init_args": {"hidden_channels": 8, "input_dropout": 0.0},
        },
        "data": {
            "class_path": "lit_gnncompress.data.GraphDataModule",
            "init_args": {"name": "digits"},
        },
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 2,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": ".", "version": 0},
            },
            "callbacks": [
                {"class_path": "lit_gnncompress.callbacks.Quantize", "init_args": quantize},
                {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"},
            ],
            **trainer,
        },
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a fit, with checkpoint and configuration."""
    folder, before = tmp_path_factory.mktemp("run"), Path.cwd()
    os.chdir(folder)
    try:
        Path("run.yaml").write_text(yaml.safe_dump(configuration()))
        main(["fit", "--config", "run.yaml"])
    finally:
        os.chdir(before)
    return folder / "lightning_logs" / "version_0"


@pytest.fixture
def ckpt(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(next(run.glob("checkpoints/*.ckpt")))


def test_export(ckpt, capsys):
    main(["export", "--ckpt", ckpt, "--out", "out.safetensors"])
    lines = capsys.readouterr().out.splitlines()
    table = [[c.strip() for c in line.strip("│").split("│")] for line in lines if "│" in line]
    rows = {row[0]: row[1:] for row in table}
    loaded = load_compressed("out.safetensors")
    for part, size in loaded.bytes_by_part.items():
        assert rows[part][0] == f"{size:,}"
    assert rows["file"][0] == f"{os.path.getsize('out.safetensors'):,}"
    data = GraphDataModule("digits").data
    assert rows["features"][1] == f"{4 * data.x.numel():,}"
    assert rows["features"][2].endswith("×")
    assert loaded.plan == BitPlan.from_dict(PLAN)
    assert sorted(loaded.data.keys()) == ["deg", "edge_index", "x"]


def test_weights_and_ranges_are_those_of_the_checkpoint(ckpt):
    main(["export", "--ckpt", ckpt])
    loaded = load_compressed("model.safetensors")
    checkpoint = torch.load(ckpt, weights_only=True)
    for name, value in loaded.module.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][name])
    found = checkpoint["callbacks"]["Quantize"]["calibration"]
    assert found
    assert to_plain(loaded.quantization.calibrated) == found


def test_the_plan_is_that_of_the_checkpoint(ckpt, run):  # as a search leaves it
    config = configuration()
    config["trainer"]["callbacks"][0]["init_args"]["plan"] = {"features": 8}
    Path("other.yaml").write_text(yaml.safe_dump(config))
    main(["export", "--ckpt", ckpt, "--config", "other.yaml"])
    assert load_compressed("model.safetensors").plan == BitPlan.from_dict(PLAN)


def test_the_configuration_of_another_machine(ckpt):
    config = configuration(accelerator="gpu", devices=4, strategy="ddp", precision="16-mixed")
    Path("gpu.yaml").write_text(yaml.safe_dump(config))
    main(["export", "--ckpt", ckpt, "--config", "gpu.yaml"])
    assert Path("model.safetensors").exists()


def test_a_file_that_is_there(ckpt):
    main(["export", "--ckpt", ckpt])
    with pytest.raises(SystemExit, match="exists already"):
        main(["export", "--ckpt", ckpt])
    main(["export", "--ckpt", ckpt, "--overwrite"])


def callback(name, **arguments):
    room = "lightning.pytorch" if name == "ModelCheckpoint" else "lit_gnncompress"
    return {"class_path": f"{room}.callbacks.{name}", "init_args": arguments}


@pytest.fixture(scope="module")
def two_phases(tmp_path_factory):
    """The folder of a fit that turns: ``best/best.ckpt``, and all epochs under ``all``."""
    folder, before = tmp_path_factory.mktemp("phases"), Path.cwd()
    best = {"monitor": "val_acc", "mode": "max"}
    config = configuration(max_epochs=5)
    config["trainer"]["callbacks"][1:] = [
        callback("QuantizationFinetuning", start_epoch=2, **best),
        callback(
            "ModelCheckpoint", dirpath="best", filename="best", enable_version_counter=False, **best
        ),
        callback("ModelCheckpoint", dirpath="all", filename="{epoch}", save_top_k=-1),
    ]
    os.chdir(folder)
    try:
        Path("run.yaml").write_text(yaml.safe_dump(config))
        main(["fit", "--config", "run.yaml"])
    finally:
        os.chdir(before)
    return folder


def test_one_checkpoint_of_both_phases_is_the_best_quantized(two_phases, tmp_path, capsys):
    (best,) = (two_phases / "best").iterdir()
    args = ["--config", str(two_phases / "run.yaml"), "--out", str(tmp_path / "out.safetensors")]
    main(["export", "--ckpt", str(best), *args])
    assert capsys.readouterr().err == ""
    state = torch.load(two_phases / "all" / "epoch=4.ckpt", weights_only=True)["callbacks"]
    wanted = state["QuantizationFinetuning"]["_best_weights"]
    for name, value in load_compressed(tmp_path / "out.safetensors").module.state_dict().items():
        assert torch.equal(value, wanted[name])


@pytest.mark.parametrize(("epoch", "full_precision"), [(1, True), (2, False), (4, False)])
def test_weights_from_before_the_turn_are_exported_with_a_warning(
    epoch, full_precision, two_phases, tmp_path, capsys
):
    ckpt = str(two_phases / "all" / f"epoch={epoch}.ckpt")
    out = ["--out", str(tmp_path / "out.safetensors")]
    main(["export", "--ckpt", ckpt, "--config", str(two_phases / "run.yaml"), *out])
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {ckpt} is of a full-precision epoch:") == full_precision
    assert ("Export a checkpoint from after the turn" in told) == full_precision
    assert (told == "") != full_precision


def test_more_than_one_checkpoint(two_phases, capsys):
    ckpts = sorted(map(str, two_phases.glob("all/*.ckpt")))
    with pytest.raises(SystemExit, match=r"epoch=0.ckpt, .* are 5 checkpoints: give one, of a q"):
        main(["export", "--ckpt", *ckpts, "--out", "out.safetensors"])
    with pytest.raises(SystemExit, match="2"):
        main(["export", "--ckpt", ckpts[0], "--nothing", "4"])
    assert "unrecognized arguments: --nothing 4" in capsys.readouterr().err


def test_what_a_search_has_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = configuration(max_epochs=2)
    best = {"monitor": "val_acc", "mode": "max"}
    search = {"trials": 2, "max_drop": 1.0, "finetune_epochs": 1, "verbose": False, **best}
    config["trainer"]["callbacks"][1:] = [
        callback("BitSearch", dirpath="found", **search),
        callback("ModelCheckpoint", dirpath="fit", filename="best", **best),
    ]
    Path("run.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "run.yaml"])
    capsys.readouterr()
    args = ["--config", "run.yaml", "--overwrite"]
    main(["export", "--ckpt", "fit/best.ckpt", *args])
    assert "Export the best.pt that fine-tuning leaves" in capsys.readouterr().err
    main(["export", "--ckpt", "found/best.pt", *args])
    assert capsys.readouterr().err == ""
    found = torch.load("found/best.pt", weights_only=True)
    loaded = load_compressed("model.safetensors")
    assert loaded.plan == BitPlan.from_dict(found["plan"]) != BitPlan.from_dict(PLAN)
    for name, value in loaded.module.state_dict().items():
        assert torch.equal(value, found["state_dict"][name])


def test_tables_that_were_tensorized(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = configuration()
    config["data"]["init_args"] |= {"features": False}
    config["model"]["init_args"] |= {"embedding_dim": 16}
    tensorize = {"tables": "largest:1", "rank": 2, "parts": True, "verbose": False}
    callback = {"class_path": "lit_gnncompress.callbacks.Tensorize", "init_args": tensorize}
    config["trainer"]["callbacks"].insert(0, callback)
    Path("run.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "run.yaml"])
    ckpt = str(next(Path().glob("**/*.ckpt")))
    capsys.readouterr()
    main(["export", "--ckpt", ckpt])
    printed = capsys.readouterr().out
    loaded = load_compressed("model.safetensors")
    assert isinstance(loaded.module.embedding, TTEmbedding)
    state = torch.load(ckpt, weights_only=True)["state_dict"]
    others = sum(v.nbytes for k, v in state.items() if not k.startswith("embedding."))
    [weights] = [line for line in printed.splitlines() if " weights " in line]
    assert f"{others + 4 * loaded.data.num_nodes * 16:,}" in weights  # a whole table of 16 columns
    assert loaded.module.state_dict().keys() == state.keys()
    for name, value in loaded.module.state_dict().items():
        assert torch.equal(value, state[name])
    assert loaded.predict().shape == (loaded.data.num_nodes,)
    config["model"]["init_args"] |= {"embedding_dim": 15}
    Path("other.yaml").write_text(yaml.safe_dump(config))
    args = ["export", "--ckpt", ckpt, "--out", "other.safetensors", "--config", "other.yaml"]
    with pytest.raises(SystemExit, match="'embedding': the state's tensor train does not fit"):
        main(args)


def without_quantize(model, data, **tensorize):
    """A configuration whose fit makes tables small, and quantizes nothing."""
    config = configuration()
    config["model"] = {"class_path": f"lit_gnncompress.models.{model[0]}", "init_args": model[1]}
    config["data"] = {"class_path": f"lit_gnncompress.data.{data}"}
    config["trainer"]["max_epochs"] = 1
    config["trainer"]["callbacks"][0] = {
        "class_path": "lit_gnncompress.callbacks.Tensorize",
        "init_args": {"rank": 2, "verbose": False, **tensorize},
    }
    return config


@pytest.mark.parametrize("model", ["DLRM", "Recommender", "Recommender, quantized"])
def test_tables_of_models_for_recommendation(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if model == "DLRM":
        widths = {"embedding_dim": 8, "bottom_mlp": [8], "top_mlp": [8]}
        config = without_quantize(("DLRM", widths), "CriteoDataModule", tables="largest:2")
    else:
        widths = {"embedding_dim": 8}
        data = "InteractionDataModule"
        config = without_quantize(("Recommender", widths), data, modules=["embedding"])
    if "quantized" in model:
        quantize = {"plan": {"features": 8}, "verbose": False}
        config["trainer"]["callbacks"].append(
            {"class_path": "lit_gnncompress.callbacks.Quantize", "init_args": quantize}
        )
    Path("run.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "run.yaml"])
    ckpt = str(next(Path().glob("**/*.ckpt")))
    main(["export", "--ckpt", ckpt])
    loaded = load_compressed("model.safetensors")
    state = torch.load(ckpt, weights_only=True)["state_dict"]
    assert any(".cores." in name for name in state)
    assert loaded.module.state_dict().keys() == state.keys()
    for name, value in loaded.module.state_dict().items():
        assert torch.equal(value, state[name])
    assert loaded.plan == BitPlan(features=8 if "quantized" in model else 32)
    if model == "DLRM":
        batch = next(iter(CriteoDataModule().predict_dataloader()))
        assert loaded.predict(batch).shape == batch.label.shape
    else:
        assert loaded.predict().shape == (loaded.module.num_users, loaded.module.k)


class Trap:
    def __reduce__(self):
        return open, ("trapped", "w")


def test_what_cannot_be_exported(ckpt, run):  # and no traceback
    Path("alone.ckpt").write_bytes(Path(ckpt).read_bytes())
    Path("text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}, "trap": Trap()}, "trap.ckpt")
    torch.save({"weights": {}}, "other.ckpt")
    torch.save({"state_dict": {}}, "empty.ckpt")
    config = configuration()
    del config["trainer"]["callbacks"][0]
    Path("plain.yaml").write_text(yaml.safe_dump(config))
    Path("list.yaml").write_text("[1, 2]")
    Path("broken.yaml").write_text("{")
    config = ["--config", str(run / "config.yaml")]
    for args, message in (
        (["none.ckpt"], "no checkpoint none.ckpt"),
        (["text.ckpt", *config], "text.ckpt is no checkpoint that can be read safely"),
        (["trap.ckpt", *config], "holds objects other than tensors"),
        (["other.ckpt", *config], "has no state_dict"),
        (["empty.ckpt", *config], "empty.ckpt does not fit the model of"),
        (["alone.ckpt"], "no config.yaml in the folder of alone.ckpt, .* give that of the fit"),
        ([ckpt, "--config", "none.yaml"], "no configuration none.yaml"),
        ([ckpt, "--config", "plain.yaml"], "has no callback Quantize, .* no table that Tensorize"),
        ([ckpt, "--config", "list.yaml"], "holds no mapping"),
        ([ckpt, "--config", "broken.yaml"], "is no YAML file"),
        ([ckpt, "--out", "none/model.safetensors"], "no folder none"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["export", "--ckpt", *args])
    assert not Path("trapped").exists()
    assert not list(Path().glob("*.safetensors"))


def test_help(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    out = capsys.readouterr().out
    assert all(word in out for word in ["--ckpt", "--out", "--config", "--overwrite"])


def test_as_a_program(ckpt):
    done = subprocess.run(
        [sys.executable, "-m", "lit_gnncompress", "export", "--ckpt", "none.ckpt"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: there is no checkpoint none.ckpt.\n"
