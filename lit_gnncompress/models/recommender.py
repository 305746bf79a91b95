"""Train a graph neural network to recommend items to users."""

from __future__ import annotations

import copy
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from lit_gnncompress.embedding import restore_tables
from lit_gnncompress.models.light_graph_conv import LightGraphConv, symmetric_adjacency
from lit_gnncompress.models.ranking_metrics import NDCGAtK, RecallAtK

_USERS = 1024  # whose scores of all items are in memory at a time


class Recommender(L.LightningModule):
    r"""LightGCN: vectors of users and items, smoothed over the graph of who chose what.

    `LightGCN <https://arxiv.org/abs/2002.02126>`_ averages a table of vectors :math:`E` and what
    its layers make of it, :math:`\frac{1}{L+1} \sum_{l=0}^{L} (D^{-1/2} A D^{-1/2})^l E`; the dot
    product of a user's and an item's vector is their score. It has no parameters besides the table
    ``embedding``, in which item ``i`` is row ``num_users + i``: one table, so that one order of the
    graph's nodes puts users beside their items.

    Batches are those of :class:`~lit_gnncompress.data.InteractionDataModule`. Training minimises
    the Bayesian personalized ranking loss, :math:`-\log\sigma(s_{up} - s_{un})` averaged over
    triples of a user, a positive and a negative item. Evaluation ranks all items but those that are
    ``seen``, ``B`` users at a time in memory of ``B * num_items`` numbers.

    Logs once an epoch ``train_loss``, and ``val_recall``, ``val_ndcg``, ``test_recall`` and
    ``test_ndcg`` of the first ``k`` recommendations, averaged over users with something to find.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        embedding_dim: Width of the vectors.
        num_layers: Layers of propagation, ``L``; 0 is matrix factorisation.
        k: How many recommendations count.
        lr: Learning rate of Adam; batches of 2**16 triples want a few hundredths.
        lambda_reg: Weight of half the squared norm of the rows that a triple reads of the table,
            averaged over triples.
        init_std: Standard deviation of the table at the beginning.
        embedding: Another table: a module that takes node ids, int64 of shape ``(N,)``, and returns
            ``(N, embedding_dim)``, such as :class:`~lit_gnncompress.embedding.TTEmbedding` or
            :class:`~lit_gnncompress.embedding.PartitionEmbedding`, which starts as it is. It is no
            hyperparameter: ``load_from_checkpoint`` wants it again.

    Raises:
        ValueError: If a size is below 1, ``k`` is more than there are items, or the table has
            another number of rows.

    Example:
        >>> from lit_gnncompress.data import InteractionDataModule
        >>> data = InteractionDataModule()
        >>> Recommender(data.num_users, data.num_items, embedding_dim=16).embedding
        Embedding(700, 16)
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        num_layers: int = 3,
        k: int = 20,
        lr: float = 0.01,
        lambda_reg: float = 1e-4,
        init_std: float = 0.1,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        sizes = {"num_users": num_users, "num_items": num_items, "embedding_dim": embedding_dim}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        if num_layers < 0:
            raise ValueError(f"num_layers={num_layers} must be at least 0")
        if not 1 <= k <= num_items:
            raise ValueError(f"k={k} must be from 1 to num_items={num_items}: lower it")
        self.save_hyperparameters(ignore=["embedding"])
        self.num_users, self.num_items = num_users, num_items
        self.k, self.lr, self.lambda_reg = k, lr, lambda_reg
        num_nodes = num_users + num_items
        if embedding is None:
            embedding = nn.Embedding(num_nodes, embedding_dim)
            nn.init.normal_(embedding.weight, std=init_std)
        rows = getattr(embedding, "num_embeddings", num_nodes)
        if rows != num_nodes:
            raise ValueError(
                f"embedding has {rows} rows, but there are {num_users} users and {num_items} "
                f"items: it needs {num_nodes}, users first"
            )
        self.embedding = embedding
        self.convs = nn.ModuleList(LightGraphConv(normalize=False) for _ in range(num_layers))
        self.val_recall, self.val_ndcg = RecallAtK(k), NDCGAtK(k)
        self.test_recall, self.test_ndcg = RecallAtK(k), NDCGAtK(k)
        self._evaluated: Tensor | None = None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for tensor trains that the checkpoint has in place of a table."""
        restore_tables(self, checkpoint["state_dict"])

    def forward(self, edge_index: Tensor) -> Tensor:
        """Compute the vectors of all users and items.

        Args:
            edge_index: Edges between users and items, both ways, int64 of shape ``(2, E)``.

        Returns:
            ``(num_users + num_items, embedding_dim)``, users first.

        Raises:
            IndexError: If an end of an edge is neither a user nor an item.
        """
        return self._propagate(self._table(edge_index.device), edge_index)

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        """Return the loss of the batch's triples."""
        self._check_sizes(batch, batch.positive)
        table = self._table(batch.edge_index.device)
        vectors = self._propagate(table, batch.edge_index)
        nodes = batch.user, batch.positive + self.num_users, batch.negative + self.num_users
        user, positive, negative = (vectors.index_select(0, node) for node in nodes)
        num_triples = max(len(batch.user), 1)  # a process may have none
        loss = F.softplus((user * (negative - positive)).sum(dim=1)).sum() / num_triples
        if self.lambda_reg:
            # Rows are read many times: their norms need not be worked out as often.
            times = torch.bincount(torch.cat(nodes), minlength=len(table))
            norms = table.square().sum(dim=1) @ times.to(table.dtype)
            loss = loss + self.lambda_reg / 2 * norms / num_triples
        size = len(batch.user)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=size, prog_bar=True)
        return loss

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        """Log recall and NDCG of what validates."""
        self._rank(batch, "val", prog_bar=True)

    def test_step(self, batch: Data, batch_idx: int) -> None:
        """Log recall and NDCG of what tests."""
        self._rank(batch, "test")

    def predict_step(self, batch: Data, batch_idx: int) -> Tensor:
        """Return the ``k`` best items of each user, best first, int64 of shape ``(B, k)``.

        A user who has not so many left gets -1 in their place. Where ``batch`` is a graph without
        ``user`` and ``seen``, it is about all users, and what its edges say they chose.
        """
        if "user" not in batch:
            return self._predict_all(batch)
        scores, items = self._recommend(batch)
        return items.masked_fill(scores == -torch.inf, -1)

    def _predict_all(self, graph: Data) -> Tensor:
        self._evaluated = None  # of another graph
        chosen = graph.edge_index[:, graph.edge_index[0] < self.num_users]
        users, by_user = chosen[0].sort()
        items = chosen[1, by_user] - self.num_users
        found = []
        for user in torch.arange(self.num_users, device=users.device).split(_USERS):
            ends = torch.searchsorted(users, torch.stack([user[0], user[-1] + 1]).to(users.dtype))
            of_users = slice(*ends.tolist())
            batch = copy.copy(graph)
            batch.user = user
            batch.seen = torch.stack([users[of_users] - user[0], items[of_users]])
            found.append(self.predict_step(batch, 0))
        self._evaluated = None
        return torch.cat(found)

    def on_validation_epoch_start(self) -> None:
        """Forget vectors of weights that have changed since."""
        self._evaluated = None

    on_test_epoch_start = on_validation_epoch_start
    on_predict_epoch_start = on_validation_epoch_start
    on_validation_epoch_end = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_start
    on_predict_epoch_end = on_validation_epoch_start

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def _table(self, device: torch.device) -> Tensor:
        """The vectors that propagation starts from."""
        weight = getattr(self.embedding, "weight", None)
        num_nodes = self.num_users + self.num_items
        if isinstance(weight, Tensor) and len(weight) == num_nodes:  # quicker than row by row
            return weight
        return self.embedding(torch.arange(num_nodes, device=device))

    def _propagate(self, x: Tensor, edge_index: Tensor) -> Tensor:
        adjacency = symmetric_adjacency(edge_index, self.num_users + self.num_items)
        total = x
        for conv in self.convs:
            x = conv(x, adjacency)
            total = total + x
        return total / (len(self.convs) + 1)

    @torch.no_grad()
    def _recommend(self, batch: Data) -> tuple[Tensor, Tensor]:
        """Scores and items of the ``k`` best, ``(B, k)`` each, without those seen."""
        self._check_sizes(batch, batch.seen[1])
        if self._evaluated is None:  # one pass over the graph for all users
            self._evaluated = self(batch.edge_index)
        users, items = self._evaluated.split([self.num_users, self.num_items])
        scores = users[batch.user] @ items.T
        scores[batch.seen[0], batch.seen[1]] = -torch.inf
        best = scores.topk(self.k, dim=1)
        return best.values, best.indices

    def _check_sizes(self, batch: Data, items: Tensor) -> None:
        """Refuses a batch of another number of users or items, as far as it tells."""
        num_nodes = self.num_users + self.num_items
        found = ""
        if "num_nodes" in batch and batch.num_nodes != num_nodes:
            found = f"a graph of {batch.num_nodes} users and items"
        for name, ids, size in (
            ("user", batch.user, self.num_users),
            ("item", items, self.num_items),
        ):
            # Other devices would have to be waited for.
            if not found and ids.is_cpu and ids.numel() and (highest := int(ids.max())) >= size:
                found = f"{name} {highest}"
        if found:
            raise ValueError(
                f"the batch has {found}, but this model was made for num_users={self.num_users} "
                f"and num_items={self.num_items}: give it those of the data, data.num_users and "
                f"data.num_items"
            )

    def _rank(self, batch: Data, stage: str, prog_bar: bool = False) -> None:
        scores, items = self._recommend(batch)
        place, wanted = batch.wanted
        rows = torch.arange(len(batch.user), device=items.device).unsqueeze(1)
        hits = torch.isin(rows * self.num_items + items, place * self.num_items + wanted)
        hits &= scores != -torch.inf
        num_wanted = torch.bincount(place, minlength=len(batch.user))
        for name in (f"{stage}_recall", f"{stage}_ndcg"):
            metric = getattr(self, name)
            metric.update(hits, num_wanted)
            self.log(name, metric, batch_size=len(batch.user), prog_bar=prog_bar)
