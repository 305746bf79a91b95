"""Embedding tables of a module: found by name or size, and replaced wherever they are used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from lit_gnncompress.embedding import QuantizedTTEmbedding, TTEmbeddingBag
from lit_gnncompress.embedding.train_table import TrainTable
from lit_gnncompress.plan import near_matches

DenseModule = nn.Embedding | nn.EmbeddingBag
"""Modules whose table becomes a tensor train."""

Train = TrainTable | QuantizedTTEmbedding
"""What stands in its place, in training and after."""

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_post_accumulate_grad_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


@dataclass(frozen=True)
class FoundTable:
    """A table, and every name that it has in the module."""

    names: tuple[str, ...]
    module: DenseModule


def named_tables(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the tables that the patterns name, tensor trains among them.

    Args:
        module: Where to look.
        patterns: Names of modules, their tails, or globs.

    Raises:
        ValueError: A pattern without a table, or a module that is no table.
    """
    layers = dict(module.named_modules(remove_duplicate=False))
    tables = _tables(module)
    names: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in tables if _matches(name, pattern)]
        if not matches:
            raise ValueError(_nothing_found(pattern, layers, tables) + _made_later(module))
        names.update(dict.fromkeys(matches))
    return list(names)


def largest_tables(module: nn.Module, count: int) -> list[str]:
    """Names of the largest tables, tensor trains among them: the size is that of a full table.

    Args:
        module: Where to look.
        count: How many, at most.

    Raises:
        ValueError: There is no table.
    """
    tables = _tables(module)
    own = {
        id(table if isinstance(table, Train) else table.weight): name
        for name, table in reversed(tables.items())  # the first name remains
    }
    names = sorted(own.values(), key=list(tables).index)
    if not names:
        raise ValueError(
            f"tables='largest:{count}': {type(module).__name__} has no nn.Embedding or "
            f"nn.EmbeddingBag.{_made_later(module)}"
        )
    sizes = {name: tables[name].num_embeddings * tables[name].embedding_dim for name in names}
    return sorted(names, key=lambda name: -sizes[name])[:count]


def find_tables(
    module: nn.Module, names: Iterable[str], argument: str
) -> tuple[list[FoundTable], dict[str, Train]]:
    """The tables of some names.

    Args:
        module: Where they are.
        names: Names of tables.
        argument: What asks for them, to begin messages with.

    Returns:
        The tables, and by name those that are tensor trains already.

    Raises:
        ValueError: A table that cannot be replaced.
    """
    layers, owners = dict(module.named_modules(remove_duplicate=False)), _owners(module)
    found: dict[int, FoundTable] = {}
    there: dict[str, Train] = {}
    for name in names:
        table: Any = layers[name]
        if isinstance(table, Train):
            there[name] = table
        elif id(table.weight) not in found:
            found[id(table.weight)] = _found(name, table, layers, owners, argument)
    return list(found.values()), there


def put(module: nn.Module, names: Sequence[str], table: nn.Module) -> None:
    """Puts a table where ``names`` say, with what users have noted on those it replaces."""
    for name in reversed(names):  # what the first says holds
        _carry(module.get_submodule(name), table)
    for name in names:
        parent, _, leaf = name.rpartition(".")
        module.get_submodule(parent)._modules[leaf] = table


def _carry(table: Any, cores: nn.Module) -> None:
    """Gives cores the attributes of a table and of its weight, such as a tag for its decay."""
    for key, value in _own_attributes(table).items():
        setattr(cores, key, value)
    for parameter in cores.parameters():
        vars(parameter).update(vars(table.weight))


def _own_attributes(table: DenseModule) -> dict[str, Any]:
    """Attributes that a user has set on a table."""
    usual = vars(type(table)(1, 1, device="meta"))
    return {key: value for key, value in vars(table).items() if key not in usual}


# --- finding --------------------------------------------------------------------------------------


def _tables(module: nn.Module) -> dict[str, Any]:
    """The tables of a module by all their names, tensor trains among them."""
    layers = module.named_modules(remove_duplicate=False)
    return {name: layer for name, layer in layers if isinstance(layer, (DenseModule, Train))}


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _nothing_found(pattern: str, layers: dict[str, nn.Module], tables: dict[str, Any]) -> str:
    if pattern in layers:
        kind = type(layers[pattern]).__name__
        return (
            f"modules: {pattern!r} is a {kind}; only nn.Embedding and nn.EmbeddingBag tables "
            f"become tensor trains."
        )
    sizes = [f"{name} ({t.num_embeddings} × {t.embedding_dim})" for name, t in tables.items()]
    known = ", ".join(sizes) or "none"
    hint = near_matches(pattern, list(tables))
    return (
        f"modules: {pattern!r} names no nn.Embedding or nn.EmbeddingBag.{hint} Tables of this "
        f"module: {known}."
    )


def _made_later(module: nn.Module) -> str:
    """What to say where tables may be made after a Trainer's callbacks are set up."""
    if not isinstance(module, LightningModule) or not is_overridden("setup", module):
        return ""
    return (
        f" Tables that {type(module).__name__}.setup makes are not there yet, for Trainers set up "
        f"callbacks first: make them in __init__ or configure_model."
    )


def _owners(module: nn.Module) -> dict[int, list[tuple[str, str]]]:
    """Of each parameter the modules, by name, and the attributes that hold it."""
    owners: dict[int, list[tuple[str, str]]] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        for attribute, parameter in layer._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append((name, attribute))
    return owners


def _found(
    name: str,
    table: DenseModule,
    layers: dict[str, nn.Module],
    owners: dict[int, list[tuple[str, str]]],
    argument: str,
) -> FoundTable:
    if type(table) not in (nn.Embedding, nn.EmbeddingBag):
        raise ValueError(
            f"{argument}: {name!r} is a {type(table).__name__}, whose own ways a tensor train "
            f"would not have: put a TTEmbedding or TTEmbeddingBag into it by hand."
        )
    if "weight" not in table._parameters:  # pruned, or normed
        raise ValueError(
            f"{argument}: {name!r} works its weight out of other parameters, which cores have not: "
            f"make that permanent before (prune.remove, remove_parametrizations)."
        )
    refused = {
        "max_norm": table.max_norm is not None,
        "scale_grad_by_freq": table.scale_grad_by_freq,
    }
    for option, is_set in refused.items():
        if is_set:
            raise ValueError(
                f"{argument}: {name!r} has {option}={getattr(table, option)}, which means nothing "
                f"to cores that all rows share: make the {type(table).__name__} without it."
            )
    sharers = owners[id(table.weight)]
    for other in dict.fromkeys(other for other, _ in sharers):
        layer = layers[other]
        if isinstance(layer, DenseModule) and (what := _beyond_rows(layer)) is not None:
            raise ValueError(
                f"{argument}: {other!r} has {what}, which a tensor train would not have: remove "
                f"it, or put a TTEmbedding or TTEmbeddingBag there by hand and add it again."
            )
    for other, attribute in sharers:
        if _ways(layers[other]) != _ways(table):
            raise ValueError(
                f"{argument}: the table of {name!r} is also '{other}.{attribute}'. Cores cannot be "
                f"shared with it: untie the two, or leave {name!r} out."
            )
    return FoundTable(tuple(other for other, _ in sharers), table)


def _beyond_rows(table: DenseModule) -> str | None:
    """What a table has or does beside looking rows up, and would lose; ``None`` if nothing."""
    for owner, what in ((table, "hooks"), (table.weight, "hooks of its weight")):
        if any(getattr(owner, name, None) for name in _HOOKS):
            return what
    parts = {**table._modules, **table._buffers, **table._parameters}
    if extra := [name for name in parts if name != "weight"]:
        return f"{extra[0]!r} of its own"
    cores = TTEmbeddingBag(1, 1, device="meta")
    if taken := [name for name in _own_attributes(table) if hasattr(cores, name)]:
        return f"an attribute {taken[0]!r} of its own"
    return None


def _ways(layer: nn.Module) -> tuple[Any, ...]:
    """What tells apart modules that look rows up in the same table."""
    names = ("padding_idx", "mode", "include_last_offset")
    return (type(layer), *(getattr(layer, name, None) for name in names))
