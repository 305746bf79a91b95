"""The graph that batches are taken from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils._pytree import tree_leaves
from torch_geometric.data import Data, HeteroData, InMemoryDataset

_LOADERS = {
    RunningStage.TRAINING: "train_dataloader",
    RunningStage.SANITY_CHECKING: "val_dataloaders",
    RunningStage.VALIDATING: "val_dataloaders",
    RunningStage.TESTING: "test_dataloaders",
    RunningStage.PREDICTING: "predict_dataloaders",
}


def whole_graph(trainer: Trainer, dataloader_idx: int | None = None) -> Data | HeteroData | None:
    """The graph that a Trainer's batches are taken from, ``None`` where nothing says so.

    It is what a loader of PyG samples from, or the only graph in a loader's dataset. Where loaders
    do not tell, it is the ``data`` of the datamodule; where they have several graphs, none.

    Args:
        trainer: The Trainer, in one of its phases.
        dataloader_idx: Which of the phase's loaders the batch is from; ``None`` for all of them.
    """
    loaders = list(_loaders(trainer)) if trainer.state.stage is not None else []
    if dataloader_idx is not None:
        loaders = loaders[dataloader_idx : dataloader_idx + 1]
    graphs = [_graph_of(loader) for loader in loaders]
    known = [graph for graph in graphs if graph is not None]
    if known:
        return known[0] if all(graph is known[0] for graph in graphs) else None
    declared = getattr(getattr(trainer, "datamodule", None), "data", None)
    return declared if isinstance(declared, (Data, HeteroData)) else None


def _loaders(trainer: Trainer) -> Iterator[Any]:
    assert trainer.state.stage is not None
    for loader in tree_leaves(getattr(trainer, _LOADERS[trainer.state.stage])):
        yield from loader.flattened if isinstance(loader, CombinedLoader) else [loader]


def _graph_of(loader: Any) -> Data | HeteroData | None:
    graph = getattr(loader, "data", None)
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, (list, tuple)) and len(dataset) == 1:
        graph = dataset[0]
    elif isinstance(dataset, InMemoryDataset) and dataset.len() == 1 and dataset.transform is None:
        graph = dataset._data  # of which the dataset gives shallow copies
    if not isinstance(graph, (Data, HeteroData)) or "n_id" in graph:
        return None  # one with n_id is itself a part of another
    has_edges = any(store.get(name) is not None for store in graph.edge_stores for name in _EDGES)
    return graph if has_edges else None


_EDGES = ("edge_index", "adj_t")
