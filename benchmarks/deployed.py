"""Models to measure: in fp32 as PyG runs them, and in real bits."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from benchmarks.graphs import torch_csr
from benchmarks.output import Output, Row
from benchmarks.recipes import recipe
from benchmarks.timing import threads
from lit_gnncompress import quantize_
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.models.backbones import build_backbone
from lit_gnncompress.storage.activations import ActivationCompressor
from lit_gnncompress.storage.inference import pack_for_inference

MODELS = ("gcn", "sage", "gin", "gat")
_HIDDEN = 64


def measure_all(
    args: argparse.Namespace,
    output: Output,
    measure: Callable[[str, str, nn.Module, Data], Row],
) -> None:
    """A row for each data set, model and number of threads, torch's and numba's in one process."""
    jobs = [(d, m, t) for d in args.dataset for m in args.model for t in args.threads]
    with Progress(console=output.console) as progress:
        task = progress.add_task("networks × threads", total=len(jobs))
        for dataset, model, count in jobs:
            data = load(dataset, args.root)
            with threads(count):
                row = measure(dataset, model, build(model, data).eval(), data)
            row = {"dataset": dataset, "model": model, "threads": count, **row}
            output.add(row, key=("dataset", "model", "threads"))
            progress.advance(task)


def load(dataset: str, root: str | None) -> Data:
    """The graph of a data set: features, edges, classes, masks."""
    return GraphDataModule(dataset, root=root).data


def build(model: str, data: Data, seed: int = 0) -> nn.Module:
    """A network of two layers, hidden width 64 (for GAT in 8 heads)."""
    torch.manual_seed(seed)
    classes = int(data.y.max()) + 1
    return build_backbone(model, data.x.size(1), _HIDDEN, 2, classes, 0.5, None)  # type: ignore


def with_csr(model: str, module: nn.Module, data: Data) -> tuple[nn.Module, Data]:
    """PyG's leanest way: the adjacency as a CSR matrix, GCN's normalisation worked out before."""
    module, data = copy.deepcopy(module), copy.copy(data)
    edge_index, weight = data.edge_index, None
    if model == "gcn":
        edge_index, weight = gcn_norm(edge_index, num_nodes=data.num_nodes)
        for conv in module.convs:  # type: ignore[union-attr]
            conv.normalize = False  # type: ignore[union-attr]
    data.adj_t = torch_csr(edge_index, int(data.num_nodes), weight)
    del data.edge_index
    return module, data


def packed(dataset: str, model: str, module: nn.Module, data: Data) -> tuple[nn.Module, Data]:
    """The same in the bits of the recipe: inputs 1 to 3, hidden features 8, attention 8."""
    plan, settings = recipe(dataset, model)
    module = copy.deepcopy(module)
    quantization = quantize_(module, plan, **settings)
    return module, pack_for_inference(quantization, data)


def packed_to_train(
    dataset: str, model: str, module: nn.Module, data: Data
) -> tuple[nn.Module, Data]:
    """As :func:`packed`, for training: inputs packed, hidden features rounded."""
    quantized, packed_data = packed(dataset, model, module, data)
    return quantized.train(), packed_data


def forward(module: nn.Module, data: Data) -> Tensor:
    """Logits of all nodes."""
    return module(data.x, data.adj_t if "adj_t" in data else data.edge_index)


def step(module: nn.Module, data: Data) -> None:
    """Gradients of all weights, in place of those that there are."""
    clear(module)
    _loss(module, data).backward()


def compressed_step(compressor: ActivationCompressor, module: nn.Module, data: Data) -> None:
    """The same with compressed activations."""
    clear(module)
    with compressor.forward(weights(module), inputs(data)):
        loss = _loss(module, data)
    loss.backward()


def clear(module: nn.Module) -> None:
    """Forgets gradients."""
    for parameter in module.parameters():
        parameter.grad = None


def _loss(module: nn.Module, data: Data) -> Tensor:
    logits = forward(module, data)
    return F.cross_entropy(logits[data.train_mask], data.y[data.train_mask])


def inputs(data: Data) -> list[Tensor]:
    """What a forward pass reads."""
    return [data.x, data.adj_t if "adj_t" in data else data.edge_index]


def weights(module: nn.Module) -> list[Any]:
    """Parameters and buffers."""
    return [*module.parameters(), *module.buffers()]
