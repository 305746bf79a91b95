"""States of full tables, read by modules that have tensor trains in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lit_gnncompress.callbacks.table_cores import lost_share
from lit_gnncompress.embedding import NodeOrder, restore_tables
from lit_gnncompress.embedding.train_table import TrainTable

_CONSIDERABLE = 0.1  # of the norm: a hundredth of its squares


def convert_full_tables(module: nn.Module) -> None:
    """Lets states load that have full tables where ``module`` has tensor trains.

    Such a table becomes the nearest cores as it is read, with a warning where these hold
    considerably less.
    """
    hooks = module._load_state_dict_pre_hooks.values()
    if not any(getattr(hook, "hook", None) is _convert for hook in hooks):
        module.register_load_state_dict_pre_hook(_convert)


def before_reading(module: nn.Module, make: Callable[[dict[str, Any]], None]) -> RemovableHandle:
    """Calls ``make`` with each state before ``module`` reads it, to put tensor trains there.

    Those that the state has as full tables become the nearest cores.
    """
    convert_full_tables(module)

    def hook(reader: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        if reader is module:
            make(state)
        else:  # a copy, such as that of averaged weights
            restore_tables(reader, state)
        _convert(reader, state, prefix)

    handle: RemovableHandle = module.register_load_state_dict_pre_hook(hook)
    return handle


def check_resumed(module: nn.Module, state: dict[str, Any], chosen: str) -> None:
    """Refuses to resume the fit of a full table, whose optimizer knows nothing of cores.

    Args:
        module: What has tensor trains.
        state: That of the fit.
        chosen: The argument of ``Tensorize`` that says which tables.

    Raises:
        MisconfigurationException: It has a full table where ``module`` has a tensor train.
    """
    layers = module.named_modules(remove_duplicate=False)
    full = [n for n, t in layers if isinstance(t, TrainTable) and f"{n}.weight" in state]
    if full:
        raise MisconfigurationException(
            f"The checkpoint was trained without Tensorize({chosen}): it has {full[0]!r} as a full "
            f"table, and its optimizer cannot go on with cores. Start a new fit from its weights: "
            f"module.load_state_dict, then fit with start='table' and without ckpt_path."
        )


def _convert(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    nearest: dict[TrainTable, TrainTable] = {}
    for name, cores in module.named_modules(remove_duplicate=False):
        if not isinstance(cores, TrainTable):
            continue
        own = f"{prefix}{name}."
        weight = state.pop(f"{own}weight", None)
        if weight is None:
            _check_cores(cores, state, own)
            continue
        if cores not in nearest:
            nearest[cores] = _nearest(cores, weight, own)
            cores.lost_share = lost_share(nearest[cores], weight)
            _warn(name, cores)
        state.update({own + key: value for key, value in nearest[cores].state_dict().items()})


def _warn(name: str, cores: TrainTable) -> None:
    lost = cores.lost_share
    if lost is not None and lost > _CONSIDERABLE:
        rank_zero_warn(
            f"{name!r}: the state has a full table, of which cores of rank "
            f"{list(cores.shape.ranks)} do not hold {lost:.0%} (by Frobenius norm). Take a higher "
            f"rank, or train the cores: load the state before, and fit with start='table'."
        )


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
