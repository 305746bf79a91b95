"""Bit searches of a small module: ``python -m tests.callbacks.searches FOLDER DEVICES [SLEEP]``."""

import json
import os
import sys
import time
from pathlib import Path

import lightning as L
import torch
from torchmetrics.classification import MulticlassAccuracy

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import BitSearch, Quantize
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from tests.callbacks.tiny import Tiny, make_graph, make_trainer


class Accurate(Tiny):
    """Logs accuracy by a metric that would synchronise itself across processes."""

    def __init__(self, sleep=0.0, **arguments):
        super().__init__(**arguments)
        self.accuracy = MulticlassAccuracy(3, average="micro")
        self.sleep = sleep
        self.slept = []  # from when to when

    def validation_step(self, batch, batch_idx):
        begin = time.monotonic()
        time.sleep(self.sleep)
        self.slept.append((begin, time.monotonic()))
        super().validation_step(batch, batch_idx)
        nodes = ~batch.train_mask
        self.accuracy.update(self(batch)[nodes], batch.y[nodes])
        self.log("val_acc", self.accuracy, batch_size=1, sync_dist=True)


def accurate(seed=1, **arguments):
    torch.manual_seed(seed)
    return Accurate(**arguments)


def bit_search(folder=None, **arguments):
    """A small search; ``val_acc`` moves in steps of 1 / 100."""
    small = {"trials": 10, "max_drop": 0.02, "finetune_epochs": 2, "n_measured": 4}
    folder = None if folder is None else str(folder)
    return BitSearch("val_acc", "max", dirpath=folder, verbose=False, **small | arguments)


def run(search, module=None, plan=None, epochs=10, nodes=200, **arguments):
    """Fits, searches, and returns the Trainer with the module and its quantization."""
    L.seed_everything(3, verbose=False)
    module = accurate() if module is None else module
    quantize = Quantize(BitPlan(degree_splits=[5]) if plan is None else plan, verbose=False)
    trainer = make_trainer(quantize, search, max_epochs=epochs, **arguments)
    loader = FullGraphLoader(make_graph(nodes))
    trainer.fit(module, loader, loader)
    return trainer, module, quantize


def told(search, trainer, module, quantize):
    """What a search ended with, as plain values."""
    loader = FullGraphLoader(make_graph(200))
    tested = trainer.test(module, loader, verbose=False)[0]["test_acc"]
    return {
        "rank": trainer.global_rank,
        "best": None if search.best is None else search.best.number,
        "trials": [{**t.to_dict(), "seconds": 0} for t in search.trials],
        "plan": quantize.plan.to_dict(),
        "bits": quantize.ledger.average_bits,
        "test": tested,
        "weights": {k: v.tolist() for k, v in module.state_dict().items()},
    }


class _Unsynchronised(Tiny):
    def validation_step(self, batch, batch_idx):
        self.log("mine", float(os.environ.get("LOCAL_RANK", 0)) + 0.5, batch_size=1)


def main(folder, devices, sleep):
    torch.set_num_threads(1)
    arguments = {"strategy": "ddp", "devices": devices} if devices > 1 else {"devices": 1}
    search = bit_search(Path(folder) / "search", n_measured=8, finetune_epochs=1)

    class Forget(L.Callback):
        def on_train_end(self, trainer, pl_module):
            pl_module.slept.clear()  # before the search

    L.seed_everything(3, verbose=False)
    module = accurate(sleep=sleep)
    quantize = Quantize(BitPlan(degree_splits=[5]), verbose=False)
    trainer = make_trainer(quantize, Forget(), search, max_epochs=3, **arguments)
    loader = FullGraphLoader(make_graph(200))
    trainer.fit(module, loader, loader)
    result = {"slept": list(module.slept)} | told(search, trainer, module, quantize)
    if devices > 1:
        other = make_trainer(
            Quantize(BitPlan()), BitSearch("mine", "max", dirpath=folder), **arguments
        )
        try:
            other.fit(_Unsynchronised(), loader, loader)
        except Exception as error:
            result["unsynchronised"] = f"{type(error).__name__}: {error}"
    rank = result["rank"]
    (Path(folder) / f"rank{rank}of{devices}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float([*sys.argv, "0"][3]))
