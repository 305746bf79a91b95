"""A quantized module made ready to predict in real bits."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lit_gnncompress.quantization.degrees import in_degrees
from lit_gnncompress.quantization.quantize import Quantization
from lit_gnncompress.storage.packed_sites import packed_input, use_packed_form

_OF_EDGES = ("edge_weight", "edge_attr")


def pack_for_inference(quantization: Quantization, data: Data) -> Data:
    """Packs the inputs of a quantized module, finds ranges for all else, and lets it keep bits.

    The module is left in evaluation mode. Ranges that a validation found stay. Inputs whose readers
    differ in bits or ranges are not packed.

    Args:
        quantization: A plan at work.
        data: A graph, on the module's device.

    Returns:
        A shallow copy of ``data``, with packed features in place of those that sites read.
    """
    module, data = quantization.module.eval(), copy.copy(data)
    known = quantization.calibrated
    quantization.enabled = True
    quantization.context.calibrating = False
    use_packed_form(quantization)
    with torch.no_grad():
        publish_graph(quantization, data)
        quantization.context.begin_step()
        predict(module, data)  # shows which layer reads what
        for name, x in list(data.to_dict().items()):
            if type(x) is Tensor and x.dim() == 2 and x.is_floating_point():
                packed = packed_input(quantization, x)
                if packed is not None:
                    data[name] = packed
        quantization.calibrated = {}  # not those of inputs, which are packed by now
        quantization.context.calibrating = True
        quantization.context.begin_step()
        predict(module, data)
        quantization.calibrated = quantization.calibrated | known
        quantization.context.calibrating = False
    quantization.context.end_step()
    return data


def publish_graph(quantization: Quantization, data: Data) -> None:
    """Tells the layers about the graph of the next forward pass."""
    degrees = None
    if quantization.context.by_degree:
        adjacency = data.adj_t if "adj_t" in data else data.edge_index
        degrees = data.deg if "deg" in data else in_degrees(adjacency, int(data.num_nodes))
    quantization.publish(int(data.num_nodes), degrees)


def predict(module: nn.Module, data: Any) -> Any:
    """What a module makes of a graph.

    A LightningModule with a ``predict_step`` of its own is asked for that, as a Trainer would ask
    it, and ``data`` may then be any batch that it takes. Another module is called with the graph,
    if it takes one argument, else with ``x``, with ``adj_t`` or ``edge_index``, and with
    ``edge_weight`` and ``edge_attr`` where it knows them and the graph has them.

    Raises:
        ValueError: A ``predict_step`` that wants more than the graph has.
    """
    step = getattr(type(module), "predict_step", None)
    if step is not None and not step.__module__.startswith(("lightning.", "pytorch_lightning.")):
        try:
            return module.predict_step(*_batch_of(step, data))  # type: ignore[operator]
        except AttributeError as error:
            if not isinstance(data, Data):
                raise
            raise ValueError(
                f"{type(module).__name__}.predict_step does not predict on the graph, which has "
                f"{', '.join(data.keys())} ({error}). Save the model without data, and give "
                f"predict() a batch."
            ) from error
    parameters = inspect.signature(module.forward).parameters
    needed = [p for p in parameters.values() if p.default is p.empty and p.kind in _POSITIONAL]
    if len(needed) == 1:
        return module(data)
    of_edges = {name: data[name] for name in _OF_EDGES if name in parameters and name in data}
    return module(data.x, data.adj_t if "adj_t" in data else data.edge_index, **of_edges)


def _batch_of(step: Callable[..., Any], data: Any) -> tuple[Any, ...]:
    """What a Trainer gives a ``predict_step``: the batch, and its index if it takes one."""
    parameters = list(inspect.signature(step).parameters.values())[1:]  # without self
    places = sum(p.kind in _POSITIONAL for p in parameters)
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return (data, 0) if places > 1 or takes_any else (data,)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
