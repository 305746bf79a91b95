"""Quantize a LightningModule of your own: it knows nothing of quantization.

Run it with `python examples/your_own_module.py --model sage`, `--model gat` or `--model custom`, a
message-passing layer written by hand. Only the two callbacks come from lit_gnncompress.
"""

import argparse

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GAT, GraphSAGE, MessagePassing
from torch_geometric.utils import from_scipy_sparse_matrix, to_undirected

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import QuantizationFinetuning, Quantize


class MeanOfNeighbours(MessagePassing):
    """Adds a node's transformed features to the mean of its neighbours'."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(aggr="mean")
        self.own = torch.nn.Linear(in_channels, out_channels)
        self.neighbours = torch.nn.Linear(in_channels, out_channels)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Maps features (N, in_channels) to (N, out_channels)."""
        return self.own(x) + self.neighbours(self.propagate(edge_index, x=x))


class Custom(torch.nn.Module):
    """Two layers of the above."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList([MeanOfNeighbours(64, 64), MeanOfNeighbours(64, 10)])

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Maps features (N, 64) to scores (N, 10)."""
        return self.convs[1](self.convs[0](x, edge_index).relu(), edge_index)


class MyModule(L.LightningModule):
    """Handwritten digits, as nodes of a nearest-neighbour graph."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Data, batch_idx: int) -> torch.Tensor:
        """Cross entropy of the training nodes."""
        scores = self.model(batch.x, batch.edge_index)
        return F.cross_entropy(scores[batch.train_mask], batch.y[batch.train_mask])

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        """Accuracy of the other nodes."""
        scores = self.model(batch.x, batch.edge_index)[~batch.train_mask]
        accuracy = (scores.argmax(dim=1) == batch.y[~batch.train_mask]).float().mean()
        self.log("accuracy", accuracy, batch_size=1, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


def digits() -> Data:
    """1,797 images of 8 × 8 pixels, each linked to the 10 that are most like it."""
    pixels, labels = load_digits(return_X_y=True)
    edge_index, _ = from_scipy_sparse_matrix(kneighbors_graph(pixels, n_neighbors=10))
    generator = torch.Generator().manual_seed(0)
    return Data(
        x=torch.tensor(pixels, dtype=torch.float32) / 16,
        y=torch.tensor(labels),
        edge_index=to_undirected(edge_index),
        train_mask=torch.rand(len(labels), generator=generator) < 0.1,
    )


def main() -> None:
    """Trains in full precision, then at 4 bits; prints what that saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("sage", "gat", "custom"), default="sage")
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()

    L.seed_everything(0)
    models = {
        "sage": lambda: GraphSAGE(64, 64, num_layers=2, out_channels=10),
        "gat": lambda: GAT(64, 64, num_layers=2, out_channels=10, heads=4),
        "custom": Custom,
    }
    module = MyModule(models[args.model]())
    plan = BitPlan(features=4, attention=8 if args.model == "gat" else 32)
    loader = DataLoader([digits()])
    trainer = L.Trainer(
        max_epochs=args.epochs,
        callbacks=[
            Quantize(plan),
            QuantizationFinetuning(
                start_epoch=args.epochs * 3 // 4, monitor="accuracy", mode="max"
            ),
        ],
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, loader, loader)
    print(
        f"accuracy at 4 bits: {trainer.validate(module, loader, verbose=False)[0]['accuracy']:.3f}"
    )


if __name__ == "__main__":
    main()
