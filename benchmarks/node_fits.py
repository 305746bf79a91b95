"""Fits of node classifiers on trainable vectors, kept in a file so that none is done twice."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import to_torch_csr_tensor

from benchmarks.finished_fits import FinishedFits
from benchmarks.node_tables import DIM, Method, make_order, make_table
from lit_gnncompress.data import GraphDataModule, share_split
from lit_gnncompress.embedding import structural_vectors
from lit_gnncompress.models import NodeClassifier
from lit_gnncompress.quantization.fused_attention import fuse_attention

NUMBERING = 0
"""Seed of the numbers of nodes. A split of this seed would draw them in the order in which they
were published, which can be that of their classes."""

_EVERY = 2  # epochs between validations
_HEADS = 2


@dataclass(frozen=True)
class Setting:
    """What is tuned."""

    lr: float
    weight_decay: float
    std: float


@dataclass(frozen=True)
class Fit:
    """What came of a fit.

    Attributes:
        val_acc: Validation accuracy of the best epoch.
        test_acc: Test accuracy of its weights; ``None`` where they were not tested.
        epochs: Epochs until the best.
        parameters: Numbers in the table.
        partitions: Parts of the first level of its order; 0 without.
        seconds: Processor time.
    """

    val_acc: float
    test_acc: float | None
    epochs: int
    parameters: int
    partitions: int
    seconds: float


class NodeFits:
    """Fits on one graph.

    Nodes are numbered anew at random: the published numbers tell classes (neighbours in number
    often share one), which an order that keeps them inside its parts would learn.

    Args:
        dataset: Name of the graph; its features are left out.
        root: Folder of the data.
        epochs: Length of a fit, at most.
        patience: Epochs without better validation accuracy after which it ends.
        path: File of finished fits, a line each; ``None`` keeps them in memory.
        cache_dir: Folder of finished orders.
    """

    def __init__(
        self,
        dataset: str,
        root: str | None,
        epochs: int,
        patience: int,
        path: Path | None,
        cache_dir: str | None = None,
    ) -> None:
        self.dataset, self.epochs, self.patience = dataset, epochs, patience
        self.path, self.cache_dir = path, cache_dir
        self._root = root
        self._data: tuple[Tensor, Tensor] | None = None
        self._finished = FinishedFits(Fit, path)
        self._memory: dict[Any, Any] = {}

    def __call__(self, model: str, method: Method, setting: Setting, seed: int, test: bool) -> Fit:
        """The fit of a seed, which draws split, order, weights and dropout.

        Raises:
            ValueError: The seed of the numbers of nodes.
        """
        if seed == NUMBERING:
            raise ValueError(f"seed={seed} numbers the nodes: take another one for their split.")
        key = {
            "dataset": self.dataset,
            "model": model,
            **asdict(method),
            **asdict(setting),
            "seed": seed,
            "epochs_most": self.epochs,
            "patience": self.patience,
            "test": test,
        }
        return self._finished.once(key, lambda: self._fit(model, method, setting, seed, test))

    def _graph(self) -> tuple[Tensor, Tensor]:
        """Edges and classes, with nodes numbered at random."""
        if self._data is None:
            published = GraphDataModule(
                self.dataset, root=self._root, features=False, split="shares"
            ).data
            generator = torch.Generator().manual_seed(NUMBERING)
            number = torch.randperm(published.num_nodes, generator=generator)
            y = torch.empty_like(published.y)
            y[number] = published.y
            self._data = number[published.edge_index], y
        return self._data

    def _fit(self, model: str, method: Method, setting: Setting, seed: int, test: bool) -> Fit:
        _, y = self._graph()
        masks = share_split(y, seed)
        classifier, edges = self._build(model, method, setting, seed)
        optimizer = torch.optim.Adam(
            classifier.parameters(),
            lr=setting.lr,
            weight_decay=setting.weight_decay,
            fused=True,  # full tables have many parameters
        )
        start, best, best_epoch, weights = time.process_time(), -1.0, 0, None
        for epoch in range(1, self.epochs + 1):
            classifier.train()
            optimizer.zero_grad()
            F.cross_entropy(classifier(None, edges)[masks[0]], y[masks[0]]).backward()
            optimizer.step()
            if epoch % _EVERY:
                continue
            accuracy = _accuracy(classifier, edges, y, masks[1])
            if accuracy > best:
                best, best_epoch = accuracy, epoch
                weights = copy.deepcopy(classifier.state_dict()) if test else None
            elif epoch - best_epoch >= self.patience:
                break
        tested = None
        if weights is not None:
            classifier.load_state_dict(weights)
            tested = _accuracy(classifier, edges, y, masks[2])
        assert classifier.embedding is not None
        parameters = sum(each.numel() for each in classifier.embedding.parameters())
        partitions = method.rows(len(y))[0] if method.kind != "full" else 0
        seconds = time.process_time() - start
        return Fit(best, tested, best_epoch, parameters, partitions, seconds)

    def _build(
        self, model: str, method: Method, setting: Setting, seed: int
    ) -> tuple[NodeClassifier, Tensor]:
        edge_index, y = self._graph()
        vectors = None
        if method.start == "structure":
            vectors = self._kept(
                ("vectors", seed), partial(structural_vectors, seed=seed), edge_index, len(y), DIM
            )
        order = self._kept(
            ("order", method, seed), make_order, method, edge_index, len(y), seed, self.cache_dir
        )
        torch.manual_seed(seed)
        classifier = NodeClassifier(
            model,  # type: ignore[arg-type]
            in_channels=0,
            num_classes=int(y.max()) + 1,
            embedding=make_table(method, len(y), order, vectors, setting.std),
            hidden_channels=64,
            heads=_HEADS if model == "gat" else None,
            input_dropout=0.0,
        )
        if model == "gat":
            fuse_attention(classifier)  # the same, in a fifth of the time
            return classifier, edge_index
        size = (len(y), len(y))
        return classifier, self._kept("sparse", to_torch_csr_tensor, edge_index.flip(0), None, size)

    def _kept(self, key: Any, make: Callable[..., Any], *arguments: Any) -> Any:
        if key not in self._memory:
            if len(self._memory) > 8:
                self._memory.pop(next(iter(self._memory)))
            self._memory[key] = make(*arguments)
        return self._memory[key]


def _accuracy(classifier: NodeClassifier, edges: Tensor, y: Tensor, mask: Tensor) -> float:
    classifier.eval()
    with torch.no_grad():
        right = classifier(None, edges).argmax(dim=1) == y
    return float(right[mask].float().mean())
