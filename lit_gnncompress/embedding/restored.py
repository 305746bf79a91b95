"""Tables of a module, replaced by the tensor trains that a state has in their place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lit_gnncompress.embedding.bag import TTEmbeddingBag
from lit_gnncompress.embedding.factors import NUM_FACTORS
from lit_gnncompress.embedding.node_order import NodeOrder
from lit_gnncompress.embedding.tensor_train import TTEmbedding
from lit_gnncompress.embedding.train_table import TrainTable


def restore_tables(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Makes room for the tensor trains of a state, in the order of whose rows they were trained.

    What they need is in the state: neither the graph that ordered their rows is needed, nor the
    arguments that they were made with. Their values come with ``load_state_dict``.

    Args:
        module: A module like the one whose state it is, with an ``nn.Embedding`` or
            ``nn.EmbeddingBag`` for each tensor train, on the device ``"meta"`` perhaps, or with
            one already.
        state: Its ``state_dict()``.

    Returns:
        Names of the tables that were replaced.

    Raises:
        ValueError: A tensor train of another size than the table in its place.

    Example:
        >>> module = nn.Sequential(nn.Embedding(50, 8))
        >>> state = nn.Sequential(TTEmbedding(50, 8, rank=2)).state_dict()
        >>> restore_tables(module, state)
        ['0']
        >>> module.load_state_dict(state)
        <All keys matched successfully>
    """
    made: dict[int, TrainTable] = {}
    found: dict[str, TrainTable] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        is_table = isinstance(layer, (nn.Embedding, nn.EmbeddingBag))
        if not name or not is_table or f"{name}.cores.0" not in state:
            continue
        key = id(layer.weight)
        if key not in made:
            try:
                made[key] = _train(layer, f"{name}.", state)
            except (ValueError, TypeError) as problem:
                message = f"{name!r}: the state's tensor train does not fit: {problem}"
                raise ValueError(message) from problem
        found[name] = made[key]
    for name, train in found.items():  # all of them, or none
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, train)
    return list(found)


def _train(layer: Any, prefix: str, state: Mapping[str, Tensor]) -> TrainTable:
    """The tensor train of a state, of which values are still to be read."""
    numbers = range(max(NUM_FACTORS))
    cores = [state[key] for k in numbers if (key := f"{prefix}cores.{k}") in state]
    if any(core.dim() != 4 for core in cores):
        raise ValueError(f"its cores have the shapes {[tuple(core.shape) for core in cores]}.")
    rows, columns = (tuple(core.size(dim) for core in cores) for dim in (0, 2))
    order = None
    if (place := state.get(f"{prefix}row_order.place")) is not None:
        order = NodeOrder(rows, place.long().cpu(), "saved")
    kind: type[TrainTable] = TTEmbedding
    ways: dict[str, Any] = {}
    if isinstance(layer, nn.EmbeddingBag):
        kind = TTEmbeddingBag
        ways = {"mode": layer.mode, "include_last_offset": layer.include_last_offset}
    train = kind(
        layer.num_embeddings,
        layer.embedding_dim,
        padding_idx=layer.padding_idx,
        rank=[core.size(3) for core in cores[:-1]],
        rows=rows,
        columns=columns,
        order=order,
        parts=_levels(rows, prefix, state),
        learn_scale=f"{prefix}core_scale" in state,
        init="uniform",  # which is quick, and overwritten
        device=None if layer.weight.is_meta else layer.weight.device,
        dtype=cores[0].dtype,
        **ways,
    )
    return train.requires_grad_(layer.weight.requires_grad).train(layer.training)


def _levels(rows: Sequence[int], prefix: str, state: Mapping[str, Tensor]) -> list[int]:
    """The levels of which parts have vectors."""
    levels: list[int] = []
    while (table := state.get(f"{prefix}parts.tables.{len(levels)}")) is not None:
        left = [level for level in range(1, len(rows)) if level not in levels]
        fitting = [level for level in left if math.prod(rows[:level]) == table.size(0)]
        if not fitting:
            raise ValueError(f"no level of rows={tuple(rows)} has {table.size(0)} parts.")
        levels.append(fitting[0])
    return levels
