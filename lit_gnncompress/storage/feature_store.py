"""Packed features in files, for PyG's loaders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import FeatureStore, TensorAttr

from lit_gnncompress.storage.container import PathLike
from lit_gnncompress.storage.feature_file import open_features
from lit_gnncompress.storage.packed_tensor import PackedTensor

Name = str | tuple[str | None, str]


class PackedFeatureStore(FeatureStore):
    """Features that may be larger than memory: loaders dequantize the rows that they sample.

    Files stay where they are, and only the pages of sampled rows are read. Each worker process of a
    loader opens them anew.

    Args:
        features: File of packed features, which is the graph's ``x``; or names of attributes and
            what they are: files of packed features, packed tensors, or tensors (labels, masks). In
            a graph with node types a name is ``("paper", "x")``.

    Raises:
        FileNotFoundError: No such file.
        ContainerError: A file of something else, damaged, cut off, or of a newer format.

    Example:
        >>> store = PackedFeatureStore({"x": "features.safetensors", "y": labels})
        >>> loader = NeighborLoader((store, graph_store), num_neighbors=[10, 5], num_workers=4)
    """

    def __init__(self, features: PathLike | Mapping[Any, PathLike | Tensor]) -> None:
        super().__init__()
        given = features if isinstance(features, Mapping) else {"x": features}
        self._features: dict[tuple[str | None, str], Tensor] = {
            name if isinstance(name, tuple) else (None, name): (
                value if isinstance(value, Tensor) else open_features(value)
            )
            for name, value in given.items()
        }

    def get_all_tensor_attrs(self) -> list[TensorAttr]:
        """Group and name of all attributes."""
        return [TensorAttr(group, name) for group, name in self._features]

    def _get_tensor(self, attr: TensorAttr) -> Tensor:
        x, index = self._find(attr), attr.index
        if isinstance(index, int):
            return self._get_tensor(TensorAttr(attr.group_name, attr.attr_name, [index]))[0]
        if not isinstance(x, PackedTensor):
            return x if index is None else x[index]
        return x.gather_rows(_rows(index, x.size(0)))

    def _get_tensor_size(self, attr: TensorAttr) -> tuple[int, ...]:
        if attr.index is None:
            return tuple(self._find(attr).shape)
        return tuple(self._get_tensor(attr).shape)

    def _find(self, attr: TensorAttr) -> Tensor:
        group = attr.group_name if attr.is_set("group_name") else None
        try:
            return self._features[group, attr.attr_name]
        except KeyError as error:
            asked, *there = (
                name if node_type is None else f"{node_type}.{name}"
                for node_type, name in [(group, attr.attr_name), *self._features]
            )
            raise KeyError(f"no features {asked!r}: there are {', '.join(there)}.") from error

    def _put_tensor(self, tensor: Any, attr: TensorAttr) -> bool:
        raise TypeError("packed features cannot be written: pack them anew, with pack_file.")

    def _remove_tensor(self, attr: TensorAttr) -> bool:
        raise TypeError(
            "packed features cannot be removed: make a PackedFeatureStore without them."
        )

    def __repr__(self) -> str:
        names = (f"{name}: {tuple(x.shape)}" for (_, name), x in self._features.items())
        return f"{type(self).__name__}({', '.join(names)})"


def _rows(index: Any, size: int) -> Tensor | None:
    """Numbers of the rows that an index means; ``None`` for all."""
    if index is None:
        return None
    if isinstance(index, slice):
        return torch.arange(*index.indices(size))
    rows = torch.as_tensor(index)
    return rows.nonzero().squeeze(1) if rows.dtype == torch.bool else rows
