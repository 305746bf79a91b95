"""Tables of a module, replaced by the small ones that a state has in their place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lit_gnncompress.embedding.bag import TTEmbeddingBag
from lit_gnncompress.embedding.factors import NUM_FACTORS
from lit_gnncompress.embedding.node_order import NodeOrder
from lit_gnncompress.embedding.partition import PartitionEmbedding
from lit_gnncompress.embedding.quantized_cores import form_of
from lit_gnncompress.embedding.row_table import RowTable
from lit_gnncompress.embedding.tensor_train import TTEmbedding
from lit_gnncompress.embedding.train_table import TrainTable


def restore_tables(module: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """Makes room for the small tables of a state, in the order of whose rows they were trained.

    These are tensor trains, tensor trains in few bits and vectors of parts. What they need is in
    the state: neither the graph that ordered their rows is needed, nor the arguments that they were
    made with. Their values come with ``load_state_dict``.

    Args:
        module: A module like the one whose state it is, with an ``nn.Embedding`` or
            ``nn.EmbeddingBag`` for each small table, on the device ``"meta"`` perhaps, or with
            one already.
        state: Its ``state_dict()``, or a checkpoint of Lightning, which has one.

    Returns:
        Names of the tables that were replaced.

    Raises:
        ValueError: A small table of another size than the table in its place, or a tensor train
            where the module has no table.

    Example:
        >>> module = nn.Sequential(nn.Embedding(50, 8))
        >>> state = nn.Sequential(TTEmbedding(50, 8, rank=2)).state_dict()
        >>> restore_tables(module, state)
        ['0']
        >>> module.load_state_dict(state)
        <All keys matched successfully>
    """
    if isinstance(inner := state.get("state_dict"), Mapping):
        state = inner
    made: dict[int, RowTable] = {}
    found: dict[str, RowTable] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        is_table = isinstance(layer, (nn.Embedding, nn.EmbeddingBag))
        make = _maker(f"{name}.", state) if name and is_table else None
        if make is None:
            continue
        key = id(layer.weight)
        if key not in made:
            try:
                table = make(layer, f"{name}.", state)
            except (ValueError, TypeError) as problem:
                what = "vectors of parts" if make is _partition else "tensor train"
                verb = "do not" if make is _partition else "does not"
                message = f"{name!r}: the state's {what} {verb} fit: {problem}"
                raise ValueError(message) from problem
            trained = layer.weight.requires_grad
            made[key] = table.requires_grad_(trained).train(layer.training)
        found[name] = made[key]
    _check_taken(module, found, state)
    for name, small in found.items():  # all of them, or none
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, small)
    return list(found)


def _check_taken(module: nn.Module, found: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Refuses a state with tensor trains for which there is no place."""
    own = module.state_dict()
    for key in state:
        name, first, after = key.partition(".cores.0")
        if not first or after not in ("", ".form") or name in found or key in own:
            continue
        kinds = (nn.Embedding, nn.EmbeddingBag, RowTable)
        tables = [n for n, layer in module.named_modules() if n and isinstance(layer, kinds)]
        message = f"The state has a tensor train {name!r}, for which the module has no table."
        for table in tables:
            if name.endswith(f".{table}"):
                prefix = name[: -len(table)]
                raise ValueError(f"{message} Take {prefix!r} off the names in the state.")
            if table.endswith(f".{name}"):
                raise ValueError(f"{message} Pass the module's {table[: -len(name) - 1]!r}.")
        raise ValueError(f"{message} Its tables: {', '.join(tables) or 'none'}.")


def _maker(prefix: str, state: Mapping[str, Tensor]) -> Any:
    """What makes the table that a state has below ``prefix``; ``None`` if it is no small one."""
    if f"{prefix}cores.0" in state:
        return _train
    if f"{prefix}cores.0.form" in state:
        return _quantized
    return _partition if f"{prefix}parts.tables.0" in state else None


def _train(layer: Any, prefix: str, state: Mapping[str, Tensor]) -> TrainTable:
    """The tensor train of a state, of which values are still to be read."""
    numbers = range(max(NUM_FACTORS))
    cores = [state[key] for k in numbers if (key := f"{prefix}cores.{k}") in state]
    kind: type[TrainTable] = TTEmbedding
    ways: dict[str, Any] = {}
    if isinstance(layer, nn.EmbeddingBag):
        kind = TTEmbeddingBag
        ways = {"mode": layer.mode, "include_last_offset": layer.include_last_offset}
    return _of_cores(
        kind,
        layer,
        prefix,
        state,
        [tuple(core.shape) for core in cores],
        [table.size(0) for table in _tables(f"{prefix}parts.tables.", "", state)],
        learn_scale=f"{prefix}core_scale" in state,
        dtype=cores[0].dtype,
        **ways,
    )


def _quantized(layer: Any, prefix: str, state: Mapping[str, Tensor]) -> RowTable:
    """The same of one in few bits."""
    if isinstance(layer, nn.EmbeddingBag):
        raise ValueError("in few bits it takes the place of an nn.Embedding, not of a bag.")
    forms = [form_of(form) for form in _tables(f"{prefix}cores.", ".form", state)]
    parts = [form_of(form) for form in _tables(f"{prefix}parts.", ".form", state)]
    table = _of_cores(
        TTEmbedding,
        layer,
        prefix,
        state,
        [shape for _, shape in forms],
        [shape[0] for _, shape in parts],
    )
    return table.quantized(forms[0][0])


def _of_cores(
    kind: Any,
    layer: Any,
    prefix: str,
    state: Mapping[str, Tensor],
    shapes: Sequence[tuple[int, ...]],
    parts: Sequence[int],
    **arguments: Any,
) -> Any:
    """A table of ``kind`` whose cores have some shapes, and levels so many parts."""
    if any(len(shape) != 4 for shape in shapes):
        raise ValueError(f"its cores have the shapes {list(shapes)}.")
    rows, columns = (tuple(shape[dim] for shape in shapes) for dim in (0, 2))
    return kind(
        layer.num_embeddings,
        layer.embedding_dim,
        padding_idx=layer.padding_idx,
        rank=[shape[3] for shape in shapes[:-1]],
        rows=rows,
        columns=columns,
        order=_order(layer, rows, prefix, state),
        parts=_levels(rows, parts),
        init="uniform",  # which is quick, and overwritten
        device=_device(layer),
        **arguments,
    )


def _partition(layer: Any, prefix: str, state: Mapping[str, Tensor]) -> PartitionEmbedding:
    """The vectors of parts of a state, of which values are still to be read."""
    tables = _tables(f"{prefix}parts.tables.", "", state)
    if isinstance(layer, nn.EmbeddingBag) or tables[0].size(1) != layer.embedding_dim:
        raise ValueError(f"they are an nn.Embedding of {tables[0].size(1)} columns, not {layer}.")
    if f"{prefix}rows" not in state or f"{prefix}row_order.place" not in state:
        raise ValueError(f"the state lacks {prefix}rows or {prefix}row_order.place.")
    rows = tuple(state[f"{prefix}rows"].tolist())
    order = _order(layer, rows, prefix, state)
    assert order is not None
    return PartitionEmbedding(
        layer.num_embeddings,
        layer.embedding_dim,
        order,
        _levels(rows, [table.size(0) for table in tables]),
        layer.padding_idx,
        device=_device(layer),
        dtype=tables[0].dtype,
    )


def _tables(before: str, after: str, state: Mapping[str, Tensor]) -> list[Tensor]:
    """The tensors ``before``, 0, 1, 2 …, ``after``."""
    found: list[Tensor] = []
    while (tensor := state.get(f"{before}{len(found)}{after}")) is not None:
        found.append(tensor)
    return found


def _device(layer: Any) -> Any:
    return None if layer.weight.is_meta else layer.weight.device


def _order(
    layer: Any, rows: tuple[int, ...], prefix: str, state: Mapping[str, Tensor]
) -> NodeOrder | None:
    place = state.get(f"{prefix}row_order.place")
    if place is None:
        return None
    if place.numel() != layer.num_embeddings:
        raise ValueError(
            f"it has {place.numel()} rows, the table in its place num_embeddings="
            f"{layer.num_embeddings}. It was made for another graph, or extended since: build the "
            f"module for {place.numel()} rows, or give load_from_checkpoint the argument that says "
            f"how many there are."
        )
    return NodeOrder(rows, place.long().cpu(), "saved")


def _levels(rows: Sequence[int], parts: Sequence[int]) -> list[int]:
    """The levels that have so many parts."""
    levels: list[int] = []
    for count in parts:
        left = [level for level in range(1, len(rows)) if level not in levels]
        fitting = [level for level in left if math.prod(rows[:level]) == count]
        if not fitting:
            raise ValueError(f"no level of rows={tuple(rows)} has {count} parts.")
        levels.append(fitting[0])
    return levels
