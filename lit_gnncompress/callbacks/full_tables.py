"""States of full tables, read by modules that have tensor trains in their place."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lit_gnncompress.embedding import NodeOrder
from lit_gnncompress.embedding.train_table import TrainTable


def convert_full_tables(module: nn.Module) -> None:
    """Lets states load that have full tables where ``module`` has tensor trains.

    Such a table becomes the nearest cores as it is read.
    """
    hooks = module._load_state_dict_pre_hooks.values()
    if not any(getattr(hook, "hook", None) is _convert for hook in hooks):
        module.register_load_state_dict_pre_hook(_convert)


def _convert(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, cores in module.named_modules(remove_duplicate=False):
        if not isinstance(cores, TrainTable):
            continue
        own = f"{prefix}{name}."
        weight = state.get(f"{own}weight")
        if weight is not None:
            del state[f"{own}weight"]
            nearest = _nearest(cores, weight, own).state_dict()
            state.update({own + key: value for key, value in nearest.items()})
        else:
            _check_cores(cores, state, own)


def _nearest(cores: TrainTable, weight: Tensor, own: str) -> TrainTable:
    """A tensor train like ``cores``, of another table."""
    if weight.shape != (cores.num_embeddings, cores.embedding_dim):
        raise ValueError(
            f"{own}weight of the state has shape {tuple(weight.shape)}, the table here "
            f"{(cores.num_embeddings, cores.embedding_dim)}: it was trained on other data."
        )
    order = None
    if (known := cores.row_order) is not None:
        order = NodeOrder(known.rows, known.place.long().cpu(), "saved", known.graph_hash)
    return type(cores).from_pretrained(
        weight,
        padding_idx=cores.padding_idx,
        rank=cores.shape.ranks,
        rows=cores.shape.rows,
        columns=cores.shape.columns,
        order=order,
        parts=False if cores.parts is None else cores.parts.levels,
        learn_scale=cores.core_scale is not None,
    )


def _check_cores(cores: TrainTable, state: dict[str, Any], own: str) -> None:
    saved = [state.get(f"{own}cores.{k}") for k in range(len(cores.cores))]
    if any(core is None for core in saved):
        return  # load_state_dict says what is missing
    shapes = [tuple(core.shape) for core in saved if core is not None]
    if shapes != list(cores.shape.core_shapes):
        rows, columns = (tuple(shape[k] for shape in shapes) for k in (0, 2))
        ranks = [shape[3] for shape in shapes[:-1]]
        raise ValueError(
            f"The state's table {own[:-1]!r} has rows={rows}, columns={columns}, rank={ranks}; the "
            f"one here has rows={cores.shape.rows}, columns={cores.shape.columns}, "
            f"rank={list(cores.shape.ranks)}. Give Tensorize those of the state."
        )
