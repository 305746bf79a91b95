"""The artifact: a trained model with its plan and its packed graph, in one file."""

from __future__ import annotations

import copy
import importlib
import itertools
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from lit_gnncompress.embedding.restored import restore_tables
from lit_gnncompress.embedding.row_table import RowTable
from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization.calibration import SiteRanges, from_plain, to_plain
from lit_gnncompress.quantization.quantize import (
    Quantization,
    quantization_of,
    quantize_,
    remove_quantization,
)
from lit_gnncompress.storage.container import ContainerError, PathLike, read_container
from lit_gnncompress.storage.container_writer import write_container
from lit_gnncompress.storage.feature_file import assemble, describe
from lit_gnncompress.storage.inference import pack_for_inference, predict, publish_graph
from lit_gnncompress.storage.packed_sites import use_packed_form
from lit_gnncompress.storage.packed_tensor import PackedTensor

KIND = "model"
_OWN_MODELS = "lit_gnncompress.models"
_WEIGHT, _DATA = "weight.", "data."
_CSR_PARTS = ("crow_indices", "col_indices", "values")


@dataclass(frozen=True)
class CompressedModel:
    """What :func:`load_compressed` gives back.

    Attributes:
        module: The module, quantized by its plan and in evaluation mode.
        data: The graph with packed features; ``None`` where the file holds the model alone.
        quantization: The plan at work; ``None`` where only the tables are small.
        bytes_by_part: Bytes of the file: its ``weights``, its ``features``, the rest of its
            ``graph``, and its ``header`` with plan, ranges and checksums.
    """

    module: nn.Module
    data: Data | None
    quantization: Quantization | None
    bytes_by_part: dict[str, int]

    @property
    def plan(self) -> BitPlan:
        """Bits of every site."""
        return BitPlan() if self.quantization is None else self.quantization.plan

    @torch.inference_mode()
    def predict(self, data: Any = None) -> Any:
        """What the module says of a graph, see :func:`~lit_gnncompress.storage.inference.predict`.

        Args:
            data: A graph on the module's device; that of the file by default. Where there is no
                plan, any batch that the module's ``predict_step`` takes.

        Raises:
            ValueError: Neither ``data`` nor a graph in the file, or a ``predict_step`` that wants
                more than a graph.
        """
        data = self.data if data is None else data
        if data is None:
            raise ValueError("The file holds no graph: give predict() one, or a batch.")
        if self.quantization is None:
            return predict(self.module, data)
        publish_graph(self.quantization, data)
        self.quantization.context.begin_step()  # a predict_step may call its model several times
        try:
            return predict(self.module, data)
        finally:
            self.quantization.context.clear()  # the next call may be about another graph

    def to(self, device: torch.device | str) -> CompressedModel:
        """The same on another device; the module moves in place."""
        data = None if self.data is None else copy.copy(self.data).to(device)
        return replace(self, module=self.module.to(device), data=data)


def save_compressed(
    path: PathLike, module: nn.Module, plan: BitPlan | None = None, data: Data | None = None
) -> dict[str, int]:
    """Writes weights, plan, ranges, and the graph with packed features to one file.

    The file is a safetensors file with checksums; one that is there is replaced as soon as the new
    one is complete. The module stays as it is, its mode and quantization included.

    Args:
        path: The file, by custom ``*.safetensors``.
        module: The module: one that was fitted with
            :class:`~lit_gnncompress.callbacks.Quantize`, or is quantized otherwise, or a plain one
            with ``plan``, or any with small tables, such as
            :class:`~lit_gnncompress.embedding.TTEmbedding`.
        plan: Bits of every site, where the module is not quantized already. If ``None`` then,
            nothing is quantized but what the tables hold in few bits.
        data: The graph to predict on. Its features are packed by the bits of the layer that reads
            them, if they are not yet; integers are kept in as few bytes as hold them. Everything
            else in it is kept as well, so leave out what predictions do not need. Ranges of hidden
            features that no validation has found are found on this graph; without it, by the first
            prediction.

    Returns:
        Bytes of the file: its ``weights``, its ``features``, the rest of its ``graph``, and its
        ``header``.

    Raises:
        TypeError: A graph of several node types, or no graph.
        ValueError: A module without plan and small tables, another plan than that of the module,
            one whose rounding is ``"floor"``, or an attribute of the module or the graph that no
            file of tensors can hold.

    Example:
        >>> save_compressed("cora.safetensors", module, data=datamodule.data)
        >>> load_compressed("cora.safetensors").predict()
    """
    if data is not None and not isinstance(data, Data):
        raise TypeError(
            f"data is a {type(data).__name__}, and a file holds the graph of one "
            f"torch_geometric.data.Data: leave it out to save the model alone."
        )
    tensors = _weights(module)
    quantization = _quantized_copy(module, plan)
    graph = None
    if data is not None:
        graph = {}
        if quantization is not None:
            tensor = next(itertools.chain(module.parameters(), module.buffers()), torch.empty(0))
            data = pack_for_inference(quantization, copy.copy(data).to(tensor.device))
        for name, value in data.to_dict().items():
            graph[name] = _store(name, value, tensors)
    meta = {"module": _describe_module(module), **_describe_plan(quantization), "data": graph}
    size = write_container(path, tensors, meta, KIND)
    return _bytes_by_part(tensors, meta, size)


def load_compressed(
    path: PathLike, module: nn.Module | type[nn.Module] | None = None
) -> CompressedModel:
    """Reads what :func:`save_compressed` wrote.

    Every byte is compared with its checksum. Nothing is unpickled, and no code is run because a
    file names it, other than this package's models.

    Args:
        path: The file.
        module: What the weights are for: a module, which gets them and their plan in place of its
            own, or a class to build one of from the hyperparameters in the file. Not needed for
            LightningModules of this package.

    Returns:
        Module, graph and plan, ready to predict.

    Raises:
        FileNotFoundError: No such file.
        ContainerError: Not such a file, damaged, cut off, or of a newer format.
        ValueError: A module of a class that has to be given, that cannot be built from the file,
            or that does not fit its weights or plan.
    """
    tensors, meta = read_container(path, KIND)
    try:
        found = _Contents.of(path, tensors, meta)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, RuntimeError) as error:
        raise ContainerError(
            f"{path} contradicts itself ({error!r}): write it again with save_compressed."
        ) from error
    built = _module(path, found, module)
    try:
        restore_tables(built, found.weights)
        _load_weights(built, found.weights)
        plain, quantization = remove_quantization(built), None
        if found.plan is not None:
            quantization = quantize_(plain, found.plan, **found.options)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"{type(built).__name__} does not fit what {path} holds, a {found.module_class}: "
            f"{error}"
        ) from error
    if quantization is not None:
        quantization.context.splits = found.splits
        quantization.context.calibrating = False
        quantization.calibrated = found.ranges
        use_packed_form(quantization)
    sizes = _bytes_by_part(tensors, meta, os.stat(path).st_size)
    return CompressedModel(built.eval(), found.data, quantization, sizes)


class _Contents(NamedTuple):
    """What a file says, before any module is touched."""

    module_class: str
    hparams: dict[str, Any]
    missing: list[str]
    weights: dict[str, Tensor]
    plan: BitPlan | None
    splits: tuple[int, ...]
    options: dict[str, Any]
    ranges: dict[str, SiteRanges]
    data: Data | None

    @classmethod
    def of(
        cls, path: PathLike, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]
    ) -> _Contents:
        described, graph = meta["module"], meta["data"]
        return cls(
            str(described["class"]),
            dict(described["hparams"]),
            list(described["missing"]),
            _below(_WEIGHT, tensors),
            None if meta["plan"] is None else BitPlan.from_dict(meta["plan"]),
            tuple(meta["splits"]),
            dict(meta["options"]),
            from_plain(meta["ranges"]),
            None
            if graph is None
            else Data.from_dict({n: _restore(path, n, kind, tensors) for n, kind in graph.items()}),
        )


# --- the module ---------------------------------------------------------------------------------


def _quantized_copy(module: nn.Module, plan: BitPlan | None) -> Quantization | None:
    """The plan at work in a copy of ``module``, which shares its weights; ``None`` without plan."""
    quantization = quantization_of(module)
    if quantization is None and plan is None:
        if any(isinstance(layer, RowTable) for layer in module.modules()):
            return None
        raise ValueError(
            f"plan=None, and {type(module).__name__} is not quantized and has no small table: give "
            f"a BitPlan, or let Tensorize replace its tables."
        )
    if quantization is not None and plan is not None and plan != quantization.plan:
        raise ValueError(
            f"plan={plan.to_dict()} is not the plan {quantization.plan.to_dict()} that "
            f"{type(module).__name__} is quantized by: leave it out."
        )
    shared = {id(each): each for each in (*module.parameters(), *module.buffers())}
    try:
        twin = copy.deepcopy(module, shared)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{type(module).__name__} cannot be copied, so it cannot be packed without changing "
            f"it: {error}"
        ) from error
    of_twin = quantization_of(twin)
    if of_twin is None:
        assert plan is not None
        of_twin = quantize_(twin, plan)
    if of_twin.context.options["rounding"] == "floor":
        raise ValueError(
            f"{type(module).__name__} is quantized with rounding='floor', and packed codes are "
            f"rounded to nearest, so that it would predict otherwise: fit with rounding='nearest'."
        )
    return of_twin


def _describe_plan(quantization: Quantization | None) -> dict[str, Any]:
    """The plan and what was found for it; a plan of ``None`` where nothing is quantized."""
    if quantization is None:
        return {"plan": None, "splits": [], "options": {}, "ranges": {}}
    return {
        "plan": quantization.plan.to_dict(),
        "splits": list(quantization.context.splits),
        "options": quantization.context.options,
        "ranges": to_plain(quantization.calibrated),
    }


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, by their names in the file."""
    tensors = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise ValueError(
                f"{name} in the state of {type(module).__name__} is {_kind(value)}, which a file "
                f"of tensors cannot hold."
            )
        tensors[_WEIGHT + name] = value.detach()
    return tensors


def _describe_module(module: nn.Module) -> dict[str, Any]:
    """Its class, and the hyperparameters that a LightningModule has saved."""
    cls = type(module)
    hparams = dict(getattr(module, "hparams", {}))
    hparams = {name: value for name, value in hparams.items() if not name.startswith("_")}
    plain = {name: value for name, value in hparams.items() if _is_plain(value)}
    return {
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "hparams": plain,
        "missing": sorted(hparams.keys() - plain.keys()),
    }


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold ``value``, and it stands for itself."""
    if isinstance(value, (list, tuple)):
        return all(_is_plain(each) for each in value)
    if isinstance(value, dict):  # LightningCLI describes objects that it makes by their class
        plain = all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
        return plain and "class_path" not in value
    return value is None or type(value) in (bool, int, float, str)


def _module(
    path: PathLike, found: _Contents, given: nn.Module | type[nn.Module] | None
) -> nn.Module:
    """The module that is given, or one of a given or own class."""
    if isinstance(given, nn.Module):
        return given
    short = found.module_class.rpartition(".")[2]
    instance = f"load_compressed(path, module={short}(...))"
    cls = _own_model(found.module_class) if given is None else given
    if cls is None:
        raise ValueError(
            f"{path} holds a {found.module_class}, which is not looked up: give the class, "
            f"load_compressed(path, module={short}), or a module, {instance}."
        )
    if found.missing:
        raise ValueError(
            f"{path} holds a {found.module_class}, but not its {', '.join(found.missing)}, which "
            f"JSON cannot hold: build the module and give it, {instance}."
        )
    try:
        return cls(**found.hparams)
    except TypeError as error:
        raise ValueError(
            f"{path} holds a {found.module_class}, which its hyperparameters {found.hparams} do "
            f"not build ({error}): build the module and give it, {instance}."
        ) from error


def _own_model(name: str) -> type[nn.Module] | None:
    """The class if it is one of this package's models."""
    if not name.startswith(f"{_OWN_MODELS}."):
        return None
    own = importlib.import_module(_OWN_MODELS)
    classes = (getattr(own, each) for each in own.__all__)
    named = (c for c in classes if isinstance(c, type) and f"{c.__module__}.{c.__name__}" == name)
    return next(named, None)


def _load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    own = module.state_dict(keep_vars=True)
    for name, value in weights.items():
        if name in own and own[name].dtype != value.dtype:
            own[name].data = own[name].data.to(value.dtype)
    module.load_state_dict(weights)


# --- the graph ----------------------------------------------------------------------------------


def _store(name: str, value: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Puts one attribute of a graph among ``tensors``; what the file must say of it."""
    place = f"{_DATA}{name}"
    if isinstance(value, PackedTensor):
        parts, meta = describe(value)
        tensors |= {f"{place}.{part}": tensor for part, tensor in parts.items()}
        return {"packed": meta}
    if isinstance(value, Tensor) and value.layout == torch.sparse_csr:
        for part in _CSR_PARTS:
            tensors[f"{place}.{part}"] = _narrow(getattr(value.detach(), part)())
        weights = tensors[f"{place}.values"]
        if weights.dim() == 1 and len(weights) and bool((weights == weights[0]).all()):
            tensors[f"{place}.values"] = weights[:1]
        return {"csr": list(value.shape), "dtype": _name(value.dtype)}
    if isinstance(value, Tensor) and value.layout == torch.strided:
        plain = value.as_tensor() if hasattr(value, "as_tensor") else value  # PyG's EdgeIndex
        tensors[place] = _narrow(plain.detach())
        return {"tensor": _name(plain.dtype), "features": _are_features(plain)}
    if _is_plain(value):
        return {"value": value}
    raise ValueError(
        f"data.{name} is {_kind(value)}, which a file of tensors cannot hold: leave it out "
        f"(data = copy.copy(data); del data.{name}), or make it a tensor; adj_t, one in "
        f"torch.sparse_csr."
    )


def _restore(
    path: PathLike, name: str, kind: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Any:
    """The inverse of :func:`_store`."""
    place = f"{_DATA}{name}"
    if "packed" in kind:
        return assemble(path, _below(f"{place}.", tensors), kind["packed"])
    if "csr" in kind:
        crow, col, values = (tensors[f"{place}.{part}"] for part in _CSR_PARTS)
        values = values.to(_dtype(kind["dtype"]))
        values = values.expand(len(col)).clone() if len(values) == 1 else values
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
            return torch.sparse_csr_tensor(crow.long(), col.long(), values, kind["csr"])
    if "tensor" in kind:
        return tensors[place].to(_dtype(kind["tensor"]))
    return kind["value"]


def _narrow(value: Tensor) -> Tensor:
    """Integers in as few bytes as hold them; anything else as it is."""
    if value.dtype != torch.int64 or not value.numel():
        return value
    least, most = (int(end) for end in value.aminmax())
    for dtype in (torch.uint8, torch.uint16, torch.int32):
        limits = torch.iinfo(dtype)
        if limits.min <= least and most <= limits.max:
            return value.to(dtype)
    return value


def _are_features(value: Tensor) -> bool:
    return value.dim() == 2 and value.is_floating_point()


def _below(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``start``, without it."""
    return {n.removeprefix(start): tensor for n, tensor in tensors.items() if n.startswith(start)}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name!r} is no dtype")
    return dtype


def _kind(value: Any) -> str:
    layout = f" in {value.layout}" if isinstance(value, Tensor) else ""
    return f"a {type(value).__name__}{layout}"


# --- bytes --------------------------------------------------------------------------------------


def _bytes_by_part(
    tensors: Mapping[str, Tensor], meta: Mapping[str, Any], size: int
) -> dict[str, int]:
    """Bytes of each part of a file of ``size`` bytes."""
    kinds = meta["data"] or {}
    features = {n for n, kind in kinds.items() if "packed" in kind or kind.get("features")}
    parts = {"weights": 0, "features": 0, "graph": 0}
    for name, tensor in tensors.items():
        is_features = name.startswith(_DATA) and name.split(".")[1] in features
        part = "weights" if name.startswith(_WEIGHT) else "features" if is_features else "graph"
        parts[part] += tensor.numel() * tensor.element_size()
    return parts | {"header": size - sum(parts.values())}
