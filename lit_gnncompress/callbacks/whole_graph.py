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


def whole_graph(trainer: Trainer) -> Any:
    """The graph that a Trainer's batches are taken from, ``None`` where nothing says so.

    It is the ``data`` of the datamodule. Without one it is the graph of the loaders that the
    Trainer reads now, if that is one graph: what a loader of PyG samples from, or the only graph
    in a loader's dataset.
    """
    declared = getattr(getattr(trainer, "datamodule", None), "data", None)
    if declared is not None or trainer.state.stage is None:
        return declared
    graphs = [_graph_of(loader) for loader in _loaders(trainer)]
    alike = bool(graphs) and all(graph is graphs[0] for graph in graphs)
    return graphs[0] if alike else None


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
    if not isinstance(graph, (Data, HeteroData)):
        return None
    has_edges = any(store.get(name) is not None for store in graph.edge_stores for name in _EDGES)
    return graph if has_edges else None


_EDGES = ("edge_index", "adj_t")
