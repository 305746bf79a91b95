"""The long jobs, each small: ``python -m tests.kills.jobs NAME FOLDER`` runs one, or goes on.

A job has four functions of a folder. ``prepare`` puts there what the job reads. ``run`` is the job,
as a user starts it, the first time and after each kill. ``kept`` reads every file that the job may
have left, fails if one is damaged, and returns what is done already: a later list starts with an
earlier one. ``end`` tells what the job came to.
"""

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim import SGD, lr_scheduler

from benchmarks.criteo_rows import write_criteo
from lit_gnncompress import (
    BitPlan,
    NodeOrder,
    hierarchical_order,
    load_compressed,
    open_features,
    save_compressed,
)
from lit_gnncompress.callbacks import QuantizationFinetuning, Quantize
from lit_gnncompress.command import main as command
from lit_gnncompress.data import CriteoDataModule, GraphDataModule
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from lit_gnncompress.files import replacing
from tests.callbacks.searches import accurate, bit_search, told
from tests.callbacks.tiny import Tiny, fit, make_graph, make_module, make_trainer


class Job(NamedTuple):
    prepare: Callable
    run: Callable
    kept: Callable
    end: Callable


def plain(value):
    """Tensors and arrays as digests of all their bits, so that JSON tells values apart."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value)
        return f"{data.shape} {data.dtype} {hashlib.sha256(data.tobytes()).hexdigest()}"
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    assert isinstance(value, (str, int, float, bool, type(None))), type(value)
    return value


def write_end(folder, values):
    with replacing(folder / "end.json") as unfinished:
        unfinished.write_text(json.dumps(plain(values)))


def read_end(folder):
    return json.loads((folder / "end.json").read_text())


def last_checkpoint(folder):
    """What ``last.ckpt`` goes on with; ``None`` where no epoch has ended."""
    path = folder / "checkpoints" / "last.ckpt"
    if not path.exists():
        return None
    found = torch.load(path, weights_only=True)
    own = {
        key: state
        for key, state in found["callbacks"].items()
        if not key.startswith("ModelCheckpoint")  # it has paths
    }
    names = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")
    return {name: found[name] for name in names} | {"callbacks": own}


def epochs_kept(folder):
    for path in (folder / "checkpoints").glob("*.ckpt"):
        assert "state_dict" in torch.load(path, weights_only=True)
    last = last_checkpoint(folder)
    return [] if last is None else [f"epoch {epoch}" for epoch in range(last["epoch"] + 1)]


# --- fit ----------------------------------------------------------------------------------------


def run_fit(folder):
    quantize = Quantize(BitPlan(features=[4, 2], degree_splits=[5]), verbose=False)
    finetuning = QuantizationFinetuning(start_epoch=6, monitor="val_loss", mode="min")
    checkpoint = ModelCheckpoint(folder / "checkpoints", save_last=True)
    module = make_module(
        optimizer=lambda p: SGD(p, lr=0.1, momentum=0.9),
        scheduler=lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    )
    trainer = make_trainer(
        quantize, finetuning, checkpoint, max_epochs=16, enable_checkpointing=True
    )
    fit(trainer, module, ckpt_path="last")
    tested = trainer.test(module, FullGraphLoader(make_graph()), verbose=False)
    end = {"weights": module.state_dict(), "tested": tested, "turned": finetuning.turned_at}
    write_end(folder, end | {"bits": quantize.ledger.average_bits})


def fit_end(folder):
    return {"checkpoint": plain(last_checkpoint(folder)), **read_end(folder)}


# --- search -------------------------------------------------------------------------------------


def run_search(folder):
    search = bit_search(folder / "search", trials=8, finetune_epochs=1)
    quantize = Quantize(BitPlan(degree_splits=[5]), verbose=False)
    checkpoint = ModelCheckpoint(folder / "checkpoints", save_last=True)
    trainer = make_trainer(quantize, search, checkpoint, max_epochs=3, enable_checkpointing=True)
    module = accurate()
    fit(trainer, module, make_graph(200), ckpt_path="last")
    write_end(folder, told(search, trainer, module, quantize))


def search_kept(folder):
    """Lines of the file of trials, of which the last may be on its way."""
    kept, path = epochs_kept(folder), folder / "search" / "trials.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()
    for line in lines:
        json.loads(line)
    reported = folder / "search" / "search.json"
    if reported.exists():
        json.loads(reported.read_text())
    weights = folder / "search" / "best.pt"
    if weights.exists():
        assert torch.load(weights, weights_only=True)["state_dict"]
    return kept + lines


def search_end(folder):
    def of(each):
        if isinstance(each, dict):
            return {key: of(value) for key, value in each.items() if key != "seconds"}
        return [of(value) for value in each] if isinstance(each, list) else each

    lines = (folder / "search" / "trials.jsonl").read_text().splitlines()
    report = json.loads((folder / "search" / "search.json").read_text())
    pictures = [(folder / "search" / "search.png").read_bytes()[-12:].hex()]  # its last chunk
    return of([read_end(folder), [json.loads(line) for line in lines], report, pictures])


# --- preprocessing: clicks, a graph, its order --------------------------------------------------


def prepare_data(folder):
    write_criteo(folder / "day_0", 20_000, (2000, 20, *([10] * 24)))
    raw = folder / "raw" / "Heterophilous"
    raw.mkdir(parents=True)
    draw, nodes = np.random.default_rng(0), 2000
    np.savez(
        raw / "roman_empire.npz",
        node_features=draw.random((nodes, 2000), dtype=np.float32),
        node_labels=draw.integers(0, 3, nodes),
        edges=draw.integers(0, nodes, (8000, 2)),
        **{f"{part}_masks": draw.random((10, nodes)) < 0.3 for part in ("train", "val", "test")},
    )


def data_of(folder):
    """Clicks, a graph and its order: read, or made where they are not there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # no file is there that must be made anew
        clicks = CriteoDataModule(
            path=folder / "day_0", processed_dir=folder / "processed", min_frequency=2
        )
        clicks.prepare_data()
        graphs = GraphDataModule("Roman-empire", folder / "raw", processed_dir=folder / "processed")
        graphs.prepare_data()
        graphs.setup("fit")
        graph = graphs.data
        order = hierarchical_order(
            graph.edge_index,
            graph.num_nodes,
            (4, 8, 70),
            cache_dir=folder / "orders",
            progress=False,
            num_workers=1,
        )
    return clicks.rows, graph, order


def data_kept(folder):
    for path in (folder / "orders").glob("*.safetensors"):
        NodeOrder.load(path)
    for path in (folder / "processed").rglob("data.pt"):
        if not any(part.startswith(".") for part in path.parts):
            assert torch.load(path, weights_only=False)  # written here, by PyG
    done = ["processed/tables/*/manifest.json", "processed/**/data.pt", "orders/*.safetensors"]
    found = [[p for p in folder.glob(each) if ".unfinished" not in str(p)] for each in done]
    return [pattern for pattern, paths in zip(done, found, strict=True) if paths]


def data_end(folder):
    rows, graph, order = data_of(folder)
    table = {name: getattr(rows, name) for name in ("dense", "sparse", "label")}
    return plain([table, rows.num_embeddings, graph.to_dict(), order.place])


# --- export, and packing of a file --------------------------------------------------------------


def run_export(folder, bits=4):
    graph, module = make_graph(2000), make_module()
    save_compressed(folder / "model.safetensors", module, BitPlan(features=bits), graph)


def export_kept(folder):
    load_compressed(folder / "model.safetensors", module=Tiny).predict()
    return []


def prepare_pack(folder):
    draw = np.random.default_rng(0)
    np.save(folder / "x.npy", draw.standard_normal((60_000, 256), dtype=np.float32))
    run_pack(folder, bits="1")


def run_pack(folder, bits="4"):
    target = str(folder / "x.safetensors")
    command(["pack", str(folder / "x.npy"), "--bits", bits, "--out", target, "--overwrite"])


def pack_kept(folder):
    open_features(folder / "x.safetensors", verify=True)
    return []


def bytes_of(name):
    return lambda folder: plain(np.fromfile(folder / name, np.uint8))


JOBS = {
    "fit": Job(lambda folder: None, run_fit, epochs_kept, fit_end),
    "search": Job(lambda folder: None, run_search, search_kept, search_end),
    "preprocessing": Job(prepare_data, data_of, data_kept, data_end),
    # A file of an earlier export is there until that of the later one takes its place.
    "export": Job(
        lambda folder: run_export(folder, bits=8),
        run_export,
        export_kept,
        bytes_of("model.safetensors"),
    ),
    "pack": Job(prepare_pack, run_pack, pack_kept, bytes_of("x.safetensors")),
}


def run(name, folder):
    """Runs a job in this process, in its folder."""
    os.chdir(folder)
    torch.set_num_threads(1)
    JOBS[name].run(Path(folder))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
