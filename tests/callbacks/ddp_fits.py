"""Fits on several processes: ``python -m tests.callbacks.ddp_fits FOLDER DEVICES``."""

import json
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim import SGD
from torch_geometric.loader import DataLoader

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import QuantizationFinetuning
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from tests.callbacks.tiny import make_graph, make_module, make_trainer, quantize


def full_graph():
    loader = FullGraphLoader(make_graph())
    return loader, loader


def small_graphs():
    # Lightning gives each process its share.
    graphs = [make_graph(30, seed, with_degrees=True) for seed in range(8)]
    return DataLoader(graphs, batch_size=2, shuffle=True), DataLoader(graphs[:4])


def run(name, loaders, devices):
    """Full precision until its early stopping, then three quantized epochs."""
    callback = quantize(BitPlan(features=[4, 2], degree_splits=[5]), verbose=True)
    finetuning = QuantizationFinetuning(start="best", patience=100, epochs=3)
    stopping = EarlyStopping("score", patience=1)
    module = make_module(
        scores=[1, 2, 9, 8, 7, 9], optimizer=lambda p: SGD(p, lr=0.1, momentum=0.9)
    )
    arguments = {"strategy": "ddp", "devices": devices} if devices > 1 else {"devices": 1}
    trainer = make_trainer(callback, finetuning, stopping, max_epochs=6, **arguments)
    trainer.fit(module, *loaders)
    trainer.test(module, loaders[1], verbose=False)
    return {
        "rank": trainer.global_rank,
        "name": name,
        "weights": {key: value.tolist() for key, value in module.state_dict().items()},
        "bits": callback.ledger.average_bits,
        "turned_at": finetuning.turned_at,
        "epochs": trainer.current_epoch,
        "best": finetuning.best_score,
        "moved": not all(
            torch.equal(value, finetuning.full_precision_weights[key])
            for key, value in module.state_dict().items()
        ),
    }


def main(folder, devices):
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [
            run("full graph", full_graph(), devices),
            run("small graphs", small_graphs(), devices),
        ]
    results.append([str(w.message) for w in caught])
    rank = results[0]["rank"]
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
