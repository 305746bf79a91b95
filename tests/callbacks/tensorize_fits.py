"""Fits on processes: ``python -m tests.callbacks.tensorize_fits FOLDER DEVICES FIT``."""

import json
import os
import sys
from pathlib import Path

import lightning as L
import torch

from lit_gnncompress.callbacks import Tensorize
from lit_gnncompress.data import CriteoDataModule
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from lit_gnncompress.models import DLRM, NodeClassifier
from tests.callbacks.tiny import make_graph, make_trainer

NODES, WIDTH, ROWS = 60, 8, (5, 3, 5)


class Graphs(L.LightningDataModule):
    """A random graph without features, the same in every process."""

    def __init__(self):
        super().__init__()
        self.data = make_graph(NODES)
        del self.data.x
        self.data.num_nodes = NODES

    def train_dataloader(self):
        return FullGraphLoader(self.data)


def run(devices, seed, tensorize=True):
    """Fits a classifier drawn from ``seed``."""
    torch.manual_seed(seed)
    module = NodeClassifier(
        "sage", in_channels=0, num_nodes=NODES, embedding_dim=WIDTH, num_classes=3, dropout=0.0,
        input_dropout=0.0, hidden_channels=4,
    )  # fmt: skip
    callbacks = [Tensorize(["embedding"], rank=2, rows=ROWS, verbose=True)] if tensorize else []
    arguments = {"strategy": "ddp", "devices": devices} if devices > 1 else {"devices": 1}
    trainer = make_trainer(*callbacks, max_epochs=3, **arguments)
    trainer.fit(module, datamodule=Graphs())
    return {
        **outcome(trainer, module),
        "bytes": sum(4 * p.numel() for p in module.embedding.parameters() if p.requires_grad),
    }


def run_clicks(devices, seed):
    """Fits a DLRM drawn from ``seed``, on the same batches however many processes there are."""
    torch.manual_seed(seed)
    data = CriteoDataModule(batch_size=2000 // devices)
    small = {"embedding_dim": 8, "bottom_mlp": (4,), "top_mlp": (4,), "sparse": True}
    module = DLRM(data.num_embeddings, data.num_dense, optimizer="sgd", lr=0.5, **small)
    tensorize = Tensorize(tables="largest:3", rank=2, order="frequency")
    arguments = {"strategy": "ddp", "devices": devices} if devices > 1 else {"devices": 1}
    trainer = make_trainer(
        tensorize, max_steps=4, num_sanity_val_steps=0, limit_val_batches=0, **arguments
    )
    trainer.fit(module, datamodule=data)
    return outcome(trainer, module)


def outcome(trainer, module):
    """What a process ends with."""
    weights = {name: value.tolist() for name, value in module.state_dict().items()}
    return {"rank": trainer.global_rank, "weights": weights}


def main(folder, devices, fit):
    torch.set_num_threads(1)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    result = {"run": run, "run_clicks": run_clicks}[fit](devices, 7 + rank)
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
