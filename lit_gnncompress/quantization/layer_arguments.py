"""Which arguments of a layer are node features, and which are edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_ADJACENCY_NAMES = ("edge_index", "adj_t", "adj")


def named_arguments(
    names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by their names in the layer's ``forward``."""
    return dict(zip(names, args)) | dict(kwargs)  # noqa: B905


def features_name(names: Sequence[str], named: Mapping[str, Any]) -> str | None:
    """The name of the features: ``x``, or the first argument that can be features.

    Args:
        names: All names that the layer takes.
        named: The arguments of a call.
    """
    if "x" in names:
        return "x"
    for name, value in named.items():
        first = value[0] if isinstance(value, (tuple, list)) and value else value
        is_matrix = isinstance(first, Tensor) and first.dim() > 1 and first.is_floating_point()
        is_features = isinstance(value, Mapping) or (is_matrix and first.layout == torch.strided)
        if is_features and name not in _ADJACENCY_NAMES:
            return name
    return None


def adjacency_of(named: Mapping[str, Any]) -> Any:
    """The argument of a call that holds the edges, in whatever form; ``None`` without one."""
    for name in _ADJACENCY_NAMES:
        if named.get(name) is not None:
            return named[name]
    for value in named.values():
        if isinstance(value, Tensor) and (
            value.layout != torch.strided or (value.dtype == torch.long and value.shape[:1] == (2,))
        ):
            return value
    return None


def replaced(
    names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any], name: str, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments and keywords of a call, with another value for one of them."""
    if name in kwargs:
        return args, kwargs | {name: value}
    place = names.index(name)
    return (*args[:place], value, *args[place + 1 :]), kwargs
