"""Features of batches and datamodules, replaced by packed ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from torch_geometric.data import Data

from lit_gnncompress.callbacks.batches import BatchDegrees, graphs_in
from lit_gnncompress.quantization.quantize import Quantization
from lit_gnncompress.storage.packed_sites import packed_input


def pack_inputs(quantization: Quantization, batch: Any, degrees: BatchDegrees) -> None:
    """Packs what the sites have just read, in ``batch`` and in the graph that it comes from.

    Args:
        quantization: A plan at work, after a forward pass.
        batch: The batch of that pass.
        degrees: Knows the whole graph, and its degrees.
    """
    whole = degrees.whole_graph if isinstance(degrees.whole_graph, Data) else None
    for graph in graphs_in(batch):
        recurs = graph in _TRAINED_ON
        _TRAINED_ON[graph] = True
        for store in graph.node_stores:
            for name, x in list(store.items()):
                if type(x) is not Tensor or x.dim() != 2 or not x.is_floating_point():
                    continue
                _replace(quantization, store, name, x, recurs, whole, degrees)


def _replace(
    quantization: Quantization,
    store: Any,
    name: str,
    x: Tensor,
    recurs: bool,
    whole: Data | None,
    degrees: BatchDegrees,
) -> None:
    source = whole[name] if whole is not None and name in whole else None
    sampled = type(source) is Tensor and source.shape[1:] == x.shape[1:] and len(source) > len(x)
    by_degree = quantization.context.by_degree
    if sampled:
        assert whole is not None
        counted = degrees.counted(whole) if by_degree else None
        packed = packed_input(quantization, x, source, counted)
        if packed is not None:
            whole[name] = packed  # what a loader samples from now on
        return
    is_whole = whole is not None and isinstance(source, Tensor) and source.shape == x.shape
    if not is_whole and not recurs:
        return  # a batch that is made anew each time would be packed in vain
    packed = packed_input(quantization, x)
    if packed is None:
        return
    store[name] = packed
    if is_whole:
        whole[name] = packed.to(source.device)  # type: ignore[index, union-attr]


_TRAINED_ON = WeakIdKeyDictionary()  # graphs of past batches
