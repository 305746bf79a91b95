"""Steps on several processes: ``python -m tests.embedding.ddp_steps FOLDER RANK WORLD``."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from lit_gnncompress.embedding import TTEmbedding
from tests.embedding.tables import random_order

N, D, BATCH, STEPS = 5000, 32, 64, 4
KINDS = ("tensor train", "full table")


class Scorer(nn.Module):
    """A table and a layer, as nodes without features have them."""

    def __init__(self, kind, seed):
        super().__init__()
        torch.manual_seed(seed)
        if kind == "tensor train":
            order = random_order(N, (18, 18, 18))
            self.table = TTEmbedding(N, D, rank=6, order=order, parts=True, learn_scale=True)
        else:
            self.table = nn.Embedding(N, D)
        self.layer = nn.Linear(D, 3)

    def forward(self, nodes):
        return self.layer(self.table(nodes))


def batches():
    """For each step its nodes and classes, those of all processes."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        nodes = torch.randint(N, (BATCH,), generator=generator)
        yield nodes, nodes % 3


def train(model, rank, world):
    """Steps on a process's share of each batch."""
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    for nodes, classes in batches():
        optimizer.zero_grad()
        share = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
        F.cross_entropy(model(nodes[share]), classes[share]).backward()
        optimizer.step()


def alone(kind):
    """What one process ends with."""
    model = Scorer(kind, seed=0)
    train(model, 0, 1)
    return model.state_dict()


def main(folder, rank, world):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    results = {}
    for kind in KINDS:
        # Another seed on each: it is DDP that makes them equal.
        model = DistributedDataParallel(Scorer(kind, seed=rank))
        sent = []

        def count(group, bucket, sent=sent):
            sent.append(bucket.buffer().nbytes)
            return allreduce_hook(group, bucket)

        model.register_comm_hook(None, count)
        train(model, rank, world)
        results[kind] = {"state": model.module.state_dict(), "bytes": sum(sent) / STEPS}
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
