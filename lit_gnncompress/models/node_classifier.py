"""Train a graph neural network to classify nodes."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.typing import Adj
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from lit_gnncompress.embedding import restore_tables
from lit_gnncompress.models.backbones import ModelName, build_backbone


class NodeClassifier(L.LightningModule):
    """Classifies the nodes of one graph, whole or in sampled neighbourhoods.

    A batch is a graph with ``x``, ``edge_index`` (or the sparse ``adj_t``, which wins) and ``y``.
    Without features (``in_channels=0``) each node has a trainable vector instead, in the table
    ``embedding``: a batch tells its nodes by ``n_id``, or has all, in their order.

    If a batch has a ``batch_size``, as batches of ``NeighborLoader`` do, its first ``batch_size``
    nodes are classified, else those of ``train_mask``, ``val_mask`` or ``test_mask``.

    Logs once an epoch ``train_loss``, ``train_acc``, ``val_loss``, ``val_acc`` and ``test_acc``,
    averaged over nodes; validation and test also over processes.

    Args:
        model: Which network: see ``build_backbone``, also for the next five arguments.
        in_channels: Width of the input features; 0 where nodes have none.
        num_classes: Number of classes.
        hidden_channels: Width of hidden features; of all heads together for GAT and GATv2, whose
            paper has 8 heads of 8: 64.
        num_layers: Message passing layers.
        dropout: Probability of dropping a hidden feature or an attention coefficient.
        heads: Heads of GAT and GATv2, ``None`` for 8; nothing else takes it.
        input_dropout: Probability of dropping an input feature.
        lr: Learning rate of Adam.
        weight_decay: L2 penalty of Adam on all parameters.
        num_nodes: Number of nodes in the graph, for vectors of nodes without features.
        embedding_dim: Width of these vectors, which start normally distributed with a variance
            of 1.
        embedding: Another table of them: a module that takes node ids, int64 of shape ``(N,)``,
            and returns ``(N, embedding_dim)``, and has all rows as its ``weight``, such as
            :class:`~lit_gnncompress.embedding.TTEmbedding` or
            :class:`~lit_gnncompress.embedding.PartitionEmbedding`. It is no hyperparameter:
            ``load_from_checkpoint`` wants it again, but for a tensor train.

    Raises:
        ValueError: If the network cannot be built from these arguments, or the table of nodes
            without features.

    Example:
        Vectors for a graph without features, which :class:`~lit_gnncompress.callbacks.Tensorize`
        finds by the name ``embedding``::

            NodeClassifier("sage", in_channels=0, num_classes=10, num_nodes=data.num_nodes)
    """

    def __init__(
        self,
        model: ModelName = "gcn",
        *,
        in_channels: int,
        num_classes: int,
        hidden_channels: int = 32,
        num_layers: int = 2,
        dropout: float = 0.5,
        heads: int | None = None,
        input_dropout: float = 0.5,
        lr: float = 0.01,
        weight_decay: float = 5e-4,
        num_nodes: int | None = None,
        embedding_dim: int = 64,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["embedding"])
        self.embedding: nn.Module | None = None
        if in_channels == 0:
            self.embedding = _table(num_nodes, embedding_dim) if embedding is None else embedding
            in_channels = _width(self.embedding)
        elif embedding is not None:
            raise ValueError(
                f"embedding is for nodes without features, but in_channels={in_channels}: leave "
                f"one of them out"
            )
        self.input_dropout = nn.Dropout(input_dropout)
        self.model = build_backbone(
            model, in_channels, hidden_channels, num_layers, num_classes, dropout, heads
        )
        self.lr = lr
        self.weight_decay = weight_decay
        self.train_acc = MulticlassAccuracy(num_classes, average="micro")
        self.val_acc = MulticlassAccuracy(num_classes, average="micro")
        self.test_acc = MulticlassAccuracy(num_classes, average="micro")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for tensor trains that the checkpoint has in place of a table."""
        restore_tables(self, checkpoint["state_dict"])

    def forward(self, x: Tensor | None, edge_index: Adj) -> Tensor:
        """Score the classes of each node.

        Args:
            x: Node features, ``(num_nodes, in_channels)``; without features, node ids, int64 of
                shape ``(num_nodes,)``, or ``None`` for all nodes in their order.
            edge_index: Edges, ``(2, num_edges)`` int64 or a sparse tensor.

        Returns:
            Logits, ``(num_nodes, num_classes)``.
        """
        if self.embedding is not None:
            x = cast(Tensor, self.embedding.weight if x is None else self.embedding(x))
        return self.model(self.input_dropout(x), edge_index)

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        """Return the mean cross entropy of the training nodes."""
        logits, y = self._labelled(batch, "train")
        loss = _cross_entropy(logits, y)
        _update(self.train_acc, logits, y)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(y))
        self.log("train_acc", self.train_acc, on_step=False, on_epoch=True, batch_size=len(y))
        return loss

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        """Log loss and accuracy of the validation nodes."""
        logits, y = self._labelled(batch, "val")
        _update(self.val_acc, logits, y)
        loss = _cross_entropy(logits, y)
        self.log("val_loss", loss, batch_size=len(y), sync_dist=True, prog_bar=True)
        self.log("val_acc", self.val_acc, batch_size=len(y), sync_dist=True, prog_bar=True)

    def test_step(self, batch: Data, batch_idx: int) -> None:
        """Log the accuracy of the test nodes."""
        logits, y = self._labelled(batch, "test")
        _update(self.test_acc, logits, y)
        self.log("test_acc", self.test_acc, batch_size=len(y), sync_dist=True)

    def predict_step(self, batch: Data, batch_idx: int) -> Tensor:
        """Return the class of each node of the batch (of each seed, if sampled), int64."""
        logits = self._logits(batch)
        return logits[: batch.batch_size if "batch_size" in batch else None].argmax(dim=-1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam with L2 penalty."""
        return torch.optim.Adam(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)

    def _logits(self, batch: Data) -> Tensor:
        edges = batch.adj_t if "adj_t" in batch else batch.edge_index
        if self.embedding is None:
            return self(batch.x, edges)
        # All rows at once are made quicker than one by one.
        return self(batch.n_id if "n_id" in batch else None, edges)

    def _labelled(self, batch: Data, stage: str) -> tuple[Tensor, Tensor]:
        """Logits and classes of the nodes that this stage looks at."""
        logits = self._logits(batch)
        nodes = slice(batch.batch_size) if "batch_size" in batch else batch[f"{stage}_mask"]
        return logits[nodes], batch.y[nodes]


def _table(num_nodes: int | None, embedding_dim: int) -> nn.Embedding:
    if num_nodes is None or num_nodes < 1 or embedding_dim < 1:
        raise ValueError(
            f"in_channels=0, so that each node needs a trainable vector, but num_nodes={num_nodes} "
            f"and embedding_dim={embedding_dim}: give the number of nodes in the graph and a "
            f"width, or an embedding"
        )
    return nn.Embedding(num_nodes, embedding_dim)


def _width(embedding: nn.Module) -> int:
    width = getattr(embedding, "embedding_dim", None)
    if not isinstance(width, int):
        raise ValueError(
            f"embedding={embedding} has no embedding_dim: give it that attribute, the width of its "
            f"vectors"
        )
    return width


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    # A random part of a graph may hold no labelled node: its loss is 0, the mean would be NaN.
    return F.cross_entropy(logits, y, reduction="sum") / max(len(y), 1)


def _update(metric: Metric, logits: Tensor, y: Tensor) -> None:
    if len(y):
        metric.update(logits, y)
