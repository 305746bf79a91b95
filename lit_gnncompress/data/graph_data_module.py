"""The data module of node classification."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE
from torch_geometric.utils import degree

from lit_gnncompress.data.catalog import canonical_name, load_graph
from lit_gnncompress.data.features import normalize_rows
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from lit_gnncompress.data.splits import apply_split


class GraphDataModule(L.LightningDataModule):
    """Serves a named graph whole or in sampled neighbourhoods.

    The graph is loaded at the first use of ``data``, ``num_features`` or ``num_classes``, or by
    the trainer. It carries ``deg`` ``(num_nodes,)`` int64, the in-degree of each node in the full
    graph before self-loops are added: sampled batches slice it, so quantizers see true degrees.

    PyG's ``LightningNodeData`` is not the base: it wants the graph before it is constructed,
    refuses a full graph on several devices, and moves the one copy of the graph to the device.

    Args:
        name: One of ``lit_gnncompress.data.available_graphs()``, in any case.
        root: Folder of raw files; ``None`` takes the environment variable ``GNNCOMPRESS_DATA``,
            and without it ``~/.cache/lit_gnncompress``. Missing files are downloaded into it.
        processed_dir: Folder of processed files; ``None`` takes
            ``~/.cache/lit_gnncompress/processed``.
        loader: ``"full"`` gives the whole graph as one batch, the same object at every step and
            in every process; ``"neighbor"`` gives ``NeighborLoader`` batches, whose first
            ``batch_size`` nodes are those to classify.
        num_neighbors: Neighbours sampled for each node, one number a layer; -1 takes all. For
            ``loader="neighbor"``, in every stage.
        batch_size: Nodes to classify in a batch, for ``loader="neighbor"``.
        num_workers: Processes that sample, for ``loader="neighbor"``.
        split: Number of the published split; ``"random"`` draws as many nodes of each class,
            ``"shares"`` shares of all; ``None`` takes the first published one, or ``"random"``
            where none is published.
        split_seed: Seed of a drawn split; a published split does not depend on it.
        num_train_per_class: Training nodes of each class, for ``split="random"``.
        num_val_per_class: Validation nodes of each class, likewise; all others test.
        train_share: Training nodes as a share of the labelled ones, for ``split="shares"``.
        val_share: Validation nodes, likewise; all others test.
        features: Whether the graph has features, if there are any. Without, nodes need trainable
            vectors: see :class:`~lit_gnncompress.models.NodeClassifier`.
        normalize_features: Divide each row of ``x`` by its sum. Features with negative entries
            (``Reddit``, ``ogbn-*``, some heterophilous sets) are left as they are.

    Raises:
        ValueError: If ``name`` or ``loader`` is unknown.
        ImportError: If ``loader="neighbor"`` and no package that samples is installed.
    """

    def __init__(
        self,
        name: str = "digits",
        root: str | os.PathLike[str] | None = None,
        processed_dir: str | os.PathLike[str] | None = None,
        loader: Literal["full", "neighbor"] = "full",
        num_neighbors: Sequence[int] = (10, 10),
        batch_size: int = 1024,
        num_workers: int = 0,
        split: int | Literal["random", "shares"] | None = None,
        split_seed: int = 0,
        num_train_per_class: int = 20,
        num_val_per_class: int = 30,
        normalize_features: bool = True,
        features: bool = True,
        train_share: float = 0.1,
        val_share: float = 0.1,
    ) -> None:
        super().__init__()
        if loader not in ("full", "neighbor"):
            raise ValueError(f"loader={loader!r} is unknown: choose 'full' or 'neighbor'")
        if loader == "neighbor" and not (WITH_PYG_LIB or WITH_TORCH_SPARSE):
            raise ImportError(
                "loader='neighbor' samples with 'pyg-lib' or 'torch-sparse', and neither is "
                "installed: `pip install pyg-lib -f https://data.pyg.org/whl/torch-"
                f"{torch.__version__}.html`, or `pip install torch-scatter torch-sparse "
                "--no-build-isolation`, or choose loader='full'"
            )
        # The folders belong to a machine, not to what was trained: they stay out of checkpoints.
        self.save_hyperparameters(ignore=["root", "processed_dir", "num_workers"])
        self.graph_name = canonical_name(name)
        self.root, self.processed_dir = root, processed_dir
        self.loader = loader
        self.num_neighbors = list(num_neighbors)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.split, self.split_seed = split, split_seed
        self.num_train_per_class = num_train_per_class
        self.num_val_per_class = num_val_per_class
        self.train_share, self.val_share = train_share, val_share
        self.normalize_features = normalize_features
        self.features = features
        self._data: Data | None = None
        self._moved: tuple[torch.device, Data] | None = None

    def __repr__(self) -> str:
        graph = "not loaded" if self._data is None else str(self._data)
        return f"{type(self).__name__}({self.graph_name!r}, loader={self.loader!r}, {graph})"

    # Lightning's own text opens the loaders, and only understands a DataLoader.
    __str__ = __repr__

    @property
    def data(self) -> Data:
        """The graph, with ``deg``, ``train_mask``, ``val_mask`` and ``test_mask``, on the CPU."""
        if self._data is None:
            data = load_graph(self.graph_name, self.root, self.processed_dir, self.features)
            apply_split(
                data,
                self.split,
                self.split_seed,
                self.num_train_per_class,
                self.num_val_per_class,
                self.train_share,
                self.val_share,
            )
            if self.normalize_features and "x" in data:
                data.x = normalize_rows(data.x)
            data.deg = degree(data.edge_index[1], data.num_nodes, dtype=torch.long)
            self._data = data
        return self._data

    @property
    def num_features(self) -> int:
        """Width of ``data.x``; 0 where there are no features."""
        return self.data.num_features

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return int(self.data.num_nodes)

    @property
    def num_classes(self) -> int:
        """Number of classes in ``data.y``."""
        return int(self.data.y.max()) + 1

    def prepare_data(self) -> None:
        """Download and process the graph once a machine; its process need not read it again."""
        _ = self.data

    def setup(self, stage: str) -> None:
        """Load the graph in every process.

        Args:
            stage: Which loaders come next; the graph serves all.
        """
        _ = self.data

    def train_dataloader(self) -> FullGraphLoader | NeighborLoader:
        """Batches of the training nodes, shuffled."""
        return self._loader(self.data.train_mask, shuffle=True)

    def val_dataloader(self) -> FullGraphLoader | NeighborLoader:
        """Batches of the validation nodes."""
        return self._loader(self.data.val_mask)

    def test_dataloader(self) -> FullGraphLoader | NeighborLoader:
        """Batches of the test nodes."""
        return self._loader(self.data.test_mask)

    def predict_dataloader(self) -> FullGraphLoader | NeighborLoader:
        """Batches of all nodes, in their order."""
        return self._loader(None)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch to the device; a full graph moves once and is the same object thereafter.

        Callbacks that quantize an input once recognise it by the identity of its tensors.

        Args:
            batch: The graph or a sampled part of it.
            device: Where to.
            dataloader_idx: Which of several loaders gave the batch.

        Returns:
            The batch on ``device``.
        """
        if self._data is None or batch is not self._data:
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        if batch.edge_index.device == device:
            return batch
        if self._moved is None or self._moved[0] != device:
            # `Data.to` works in place: without the copy, `data` itself would leave the CPU.
            self._moved = (device, copy.copy(batch).to(device))
        return self._moved[1]

    def _loader(
        self, nodes: Tensor | None, shuffle: bool = False
    ) -> FullGraphLoader | NeighborLoader:
        if self.loader == "full":
            return FullGraphLoader(self.data)
        return NeighborLoader(
            self.data,
            num_neighbors=self.num_neighbors,
            input_nodes=nodes,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
