"""Features of batches and datamodules, replaced by packed ones."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from torch_geometric.data import Data

from lit_gnncompress.callbacks.batches import BatchDegrees, are_rows, graphs_in
from lit_gnncompress.kept import kept
from lit_gnncompress.quantization.quantize import Quantization
from lit_gnncompress.storage.packed_sites import is_packable, packed_input


class _Replaced(NamedTuple):
    store: weakref.ref[Any]  # a graph, or its nodes of one type
    name: str
    original: weakref.ref[Tensor]
    packed: weakref.ref[Tensor]


class ReplacedInputs:
    """What stood where packed features stand now, as long as somebody else holds it.

    To hold it here would take the memory that packing saves.
    """

    def __init__(self) -> None:
        self._replaced: list[_Replaced] = []
        self._kept: list[tuple[Any, Tensor]] | None = None

    def replace(self, store: Any, name: str, original: Tensor, packed: Tensor) -> None:
        """Puts ``packed`` in the place of ``original``."""
        store[name] = packed
        alive = [r for r in self._replaced if r.original() is not None and r.store() is not None]
        place = _Replaced(weakref.ref(store), name, weakref.ref(original), weakref.ref(packed))
        self._replaced = [*alive, place]
        if self._kept is not None:
            self._kept.append((store, original))

    def put_back(self) -> None:
        """Puts back what still exists, where its packed form still stands."""
        for place in self._replaced:
            store, original = place.store(), place.original()
            if store is None or original is None or place.name not in store:
                continue
            if store[place.name] is place.packed():
                store[place.name] = original
        self._replaced = []

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Holds what is replaced in the meantime, and puts it back in the end."""
        self._kept = []
        try:
            yield
        finally:
            self.put_back()
            self._kept = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_replaced": [], "_kept": None}  # graphs are not part of a callback


def pack_inputs(
    quantization: Quantization, batch: Any, degrees: BatchDegrees, replaced: ReplacedInputs
) -> None:
    """Packs what the sites have just read, in ``batch`` and in the graph that it comes from.

    Args:
        quantization: A plan at work, after a forward pass.
        batch: The batch of that pass.
        degrees: Knows the whole graph, and its degrees.
        replaced: Is told what gives way.
    """
    whole = degrees.whole_graph if isinstance(degrees.whole_graph, Data) else None
    for graph in graphs_in(batch):
        recurs = graph in _TRAINED_ON
        _TRAINED_ON[graph] = True
        for store in graph.node_stores:
            for name, x in list(store.items()):
                if type(x) is not Tensor or x.dim() != 2 or not x.is_floating_point():
                    continue
                _replace(quantization, store, name, x, recurs, whole, degrees, replaced)


def _replace(
    quantization: Quantization,
    store: Any,
    name: str,
    x: Tensor,
    recurs: bool,
    whole: Data | None,
    degrees: BatchDegrees,
    replaced: ReplacedInputs,
) -> None:
    if not is_packable(quantization, x):
        return
    source = whole[name] if whole is not None and name in whole else None
    nodes = store.get("n_id")
    if type(source) is not Tensor or not _holds(source, x, nodes):
        source = None
    by_degree = quantization.context.by_degree
    if source is not None and len(source) > len(x):  # a sample
        assert whole is not None
        of_nodes = degrees.of_whole(whole) if by_degree else None
        packed = packed_input(quantization, x, source, of_nodes)
        if packed is not None:
            # what a loader samples from now on
            replaced.replace(whole, name, source, packed)
        return
    if source is None and not recurs:
        return  # a batch that is made anew each time would be packed in vain
    packed = packed_input(quantization, x)
    if packed is None:
        return
    if recurs or source is x:
        replaced.replace(store, name, x, packed)
    else:
        store[name] = packed  # a copy of the graph, made for this step
    if source is not None and whole[name] is source:  # type: ignore[index]
        replaced.replace(whole, name, source, packed.to(source.device))


def _holds(source: Tensor, x: Tensor, nodes: Tensor | None) -> bool:
    """Whether ``x`` is ``source``, or rows of it: a loader may change what it hands out."""
    if source is x:
        return True
    if source.shape[1:] != x.shape[1:] or len(source) < len(x):
        return False
    if nodes is None and len(source) > len(x):  # nothing tells which rows
        known = kept(source, ("marks of rows", x.dtype), lambda: _marks(source, x.dtype))
        return bool(torch.isin(_marks(x, x.dtype), known).all())
    if nodes is not None and (len(nodes) != len(x) or not are_rows(nodes, len(source))):
        return False
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        own = source[rows] if nodes is None else source[nodes[rows].to(source.device)]
        if not torch.equal(own.to(x.device, x.dtype), x[rows]):
            return False
    return True


def _marks(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A number for each row, int64 on the CPU, that equal rows share and others hardly ever."""
    as_integer = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (x.size(1),), generator=generator) | 1
    blocks = (x[start : start + _BLOCK] for start in range(0, len(x), _BLOCK))
    marks = [
        (block.cpu().to(dtype).contiguous().view(as_integer) * factors).sum(1) for block in blocks
    ]
    return torch.cat(marks) if marks else factors[:0]


_BLOCK = 4096
_TRAINED_ON = WeakIdKeyDictionary()  # graphs of past batches
