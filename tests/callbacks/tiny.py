"""A LightningModule as a user may write one, a graph and a Trainer: all small."""

import lightning as L
import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.nn import GCN
from torch_geometric.utils import coalesce, degree

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import Quantize
from lit_gnncompress.data.full_graph_loader import FullGraphLoader

CONVS = ["net.convs.0", "net.convs.1"]


def make_graph(num_nodes=40, seed=0, with_degrees=False):
    """A random graph with 8 features and 3 classes that neighbours share."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (num_nodes,), generator=generator)
    pairs = torch.randint(0, num_nodes, (2, 8 * num_nodes), generator=generator)
    alike = y[pairs[0]] == y[pairs[1]]
    edge_index = coalesce(pairs[:, alike | (torch.arange(pairs.size(1)) % 8 == 0)])
    x = torch.randn(num_nodes, 8, generator=generator) + F.one_hot(y, 8)
    graph = Data(x=x, edge_index=edge_index, y=y, train_mask=torch.arange(num_nodes) % 2 == 0)
    if with_degrees:
        graph.deg = degree(edge_index[1], num_nodes, dtype=torch.long)
    return graph


class Tiny(L.LightningModule):
    """Classifies nodes; logs ``score`` from a list where one is given, an entry an epoch."""

    def __init__(self, net=None, scores=None, optimizer=None, scheduler=None):
        super().__init__()
        self.net = GCN(8, 16, 2, 3) if net is None else net
        self.scores = scores
        self.optimizer = optimizer or (lambda p: torch.optim.Adam(p, lr=0.02))
        self.scheduler = scheduler

    def forward(self, batch):
        return self.net(batch.x, batch.edge_index)

    def training_step(self, batch, batch_idx):
        nodes = batch.train_mask
        loss = F.cross_entropy(self(batch)[nodes], batch.y[nodes])
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch, batch_idx):
        nodes = ~batch.train_mask
        logits = self(batch)[nodes]
        loss = F.cross_entropy(logits, batch.y[nodes])
        self.log("val_loss", loss, batch_size=1, sync_dist=True)
        if self.scores is not None:
            self.log("score", float(self.scores[self.current_epoch]), batch_size=1)

    def test_step(self, batch, batch_idx):
        right = self(batch).argmax(1) == batch.y
        self.log("test_acc", right.float().mean(), batch_size=1, sync_dist=True)

    def predict_step(self, batch, batch_idx):
        return self(batch)

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"},
        }


def make_module(seed=1, **arguments):
    torch.manual_seed(seed)
    return Tiny(**arguments)


def quantize(features=2, verbose=False, **options):
    """A Quantize callback whose plan gives ``features`` bits."""
    plan = features if isinstance(features, BitPlan) else BitPlan(features=features)
    return Quantize(plan, verbose=verbose, **options)


def make_trainer(*callbacks, max_epochs=2, **arguments):
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(max_epochs=max_epochs, callbacks=list(callbacks), **quiet | arguments)


def fit(trainer, module, graph=None, **arguments):
    loader = FullGraphLoader(make_graph() if graph is None else graph)
    trainer.fit(module, loader, loader, **arguments)
    return module


def weights_of(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(a, b):
    """Whether two dicts of weights are equal, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name].cpu(), b[name].cpu()) for name in a)
