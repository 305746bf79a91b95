"""Node-classification graphs of the Open Graph Benchmark."""

from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage
from torch_geometric.utils import to_undirected

from lit_gnncompress.data.folders import Folders
from lit_gnncompress.data.pyg_datasets import relocated


def load_ogb(name: str, folders: Folders) -> Data:
    """Load a graph of the `Open Graph Benchmark <https://arxiv.org/abs/2005.00687>`_.

    Edges are made undirected, labels are flattened, and OGB's own split becomes masks. Before it
    downloads more than 1 GB (``ogbn-products``), ``ogb`` asks on the terminal.

    Args:
        name: ``"ogbn-arxiv"`` or ``"ogbn-products"``.
        folders: Where raw (``raw / "OGB"``) and processed files live.

    Returns:
        The graph with ``x``, ``edge_index``, ``y`` ``(num_nodes,)`` and the three masks.

    Raises:
        ModuleNotFoundError: If the optional package ``ogb`` is not installed.
    """
    try:
        from ogb.nodeproppred import PygNodePropPredDataset
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name!r} is read by the optional package 'ogb' (cannot import {error.name!r}): "
            "install it with `pip install ogb`"
        ) from error
    processed = folders.processed / "OGB" / name
    # ogb 1.3.6 calls torch.load without `weights_only`, which refuses the parts of a PyG graph
    # since torch 2.6. They are allowed here by name, so the file is still not free to run code.
    allowed = [DataEdgeAttr, DataTensorAttr, GlobalStorage]
    with torch.serialization.safe_globals(allowed):
        dataset = relocated(PygNodePropPredDataset, processed)(name, root=str(folders.raw / "OGB"))
        data, split = dataset[0], dataset.get_idx_split()
    data.edge_index = to_undirected(data.edge_index, num_nodes=data.num_nodes)
    data.y = data.y.view(-1)
    for stage, key in (("train", "train"), ("val", "valid"), ("test", "test")):
        mask = torch.zeros(data.num_nodes, dtype=torch.bool)
        mask[split[key]] = True
        data[f"{stage}_mask"] = mask
    return data
