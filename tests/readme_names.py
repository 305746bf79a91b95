"""What the README's code takes for granted: modules, graphs, and a feature file."""

import lightning as L
import numpy as np
import torch
from torch_geometric.data import Data

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import CompressActivations
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from lit_gnncompress.models import NodeClassifier


def names():
    """The names; the file goes to the working directory."""
    many = _graph(100_000, 8)
    np.save("features.npy", many.x.numpy())
    module = NodeClassifier("gcn", in_channels=8, num_classes=2)
    return {
        "my_lightning_module": NodeClassifier("gat", in_channels=4, num_classes=2),
        "my_data": _Batches(_graph(60, 4)),
        "data": many,
        "module": module,
        "model": module.model,
        "weight": torch.randn(300, 100),
        "plan": BitPlan(features=4),
        "CompressActivations": CompressActivations,
    }


def _graph(num_nodes, width):
    """A circle of nodes."""
    node = torch.arange(num_nodes)
    mask = torch.ones(num_nodes, dtype=torch.bool)
    return Data(
        x=torch.randn(num_nodes, width),
        y=node % 2,
        edge_index=torch.stack([node, (node + 1) % num_nodes]),
        train_mask=mask,
        val_mask=mask,
        test_mask=mask,
    )


class _Batches(L.LightningDataModule):
    """One graph, in all stages."""

    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    def train_dataloader(self):
        return FullGraphLoader(self.graph)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader
