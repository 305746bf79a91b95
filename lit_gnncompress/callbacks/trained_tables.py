"""Whether a fit uses and trains the tensor trains that took the place of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lightning.pytorch import Callback, callbacks
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer, SparseAdam

from lit_gnncompress.callbacks.tables import FoundTable, Train

_SHOWN = 4  # names of parameters in a message
# Callbacks that copy the module in setup; the second came after Lightning 2.5.
_COPYING = tuple(
    getattr(callbacks, name)
    for name in ("StochasticWeightAveraging", "WeightAveraging")
    if hasattr(callbacks, name)
)


def check_copies(before: Iterable[Callback], chosen: str) -> None:
    """Refuses callbacks that have copied a module with its full tables.

    Args:
        before: Callbacks that are set up before tables are replaced.
        chosen: The argument of ``Tensorize`` that says which tables.

    Raises:
        MisconfigurationException: There is one.
    """
    for other in before:
        if isinstance(other, _COPYING):
            raise MisconfigurationException(
                f"{type(other).__name__} comes before Tensorize({chosen}) among the callbacks, and "
                f"has copied the module with its full tables: put Tensorize before it."
            )


def check_places(
    module: nn.Module, names: Iterable[str], dense: Sequence[FoundTable], chosen: str
) -> None:
    """Refuses a module that has made tables anew, or more of them, since they were replaced.

    Args:
        module: The module that is to be trained.
        names: Names of the tables that were replaced.
        dense: Tables that should have been.
        chosen: The argument of ``Tensorize`` that says which.

    Raises:
        MisconfigurationException: There are some.
    """
    layers = dict(module.named_modules(remove_duplicate=False))
    wrong = [name for name in names if not isinstance(layers.get(name), Train)]
    wrong += [each.names[0] for each in dense]
    if wrong:
        found = type(layers[wrong[0]]).__name__ if wrong[0] in layers else "nothing"
        raise MisconfigurationException(
            f"Tensorize({chosen}): {wrong[0]!r} is to be a tensor train, but {found} is there when "
            f"the fit starts. {type(module).__name__} made it after tables were replaced, in setup "
            f"or once more in configure_model: make it in __init__, or in configure_model where "
            f"there is none yet."
        )


def check_optimizers(
    module: nn.Module,
    trains: Mapping[str, Train],
    gone: Iterable[Tensor],
    optimizers: Sequence[Optimizer],
    chosen: str,
) -> None:
    """Refuses optimizers that hold a replaced table, lack cores, or cannot train them.

    Args:
        module: What is trained.
        trains: The tensor trains in it, by name.
        gone: Tables that they replaced.
        optimizers: Those of the fit.
        chosen: The argument of ``Tensorize`` that says which tables.

    Raises:
        MisconfigurationException: One holds a replaced table, one is for sparse gradients alone, or
            none holds cores that require gradients.
    """
    replaced = {id(weight) for weight in gone}
    cores = {id(core) for table in trains.values() for core in table.parameters()}
    held: set[int] = set()
    for optimizer in optimizers:
        own = {id(each) for group in optimizer.param_groups for each in group["params"]}
        if own & replaced:
            raise MisconfigurationException(
                f"An optimizer holds a table that Tensorize({chosen}) replaced: make "
                f"optimizers in configure_optimizers, from self.parameters()."
            )
        if isinstance(optimizer, SparseAdam) and own & cores:
            raise MisconfigurationException(
                f"SparseAdam takes sparse gradients alone, and those of the cores that "
                f"Tensorize({chosen}) made are dense: give these to Adam or Adagrad."
            )
        held |= own
    if not held:  # nothing at all is trained, and Lightning says so
        return
    for name, table in trains.items():
        lacking = [
            part for part, core in table.named_parameters()
            if core.requires_grad and id(core) not in held
        ]  # fmt: skip
        if lacking:
            raise MisconfigurationException(
                f"No optimizer holds {name + '.' + lacking[0]!r}, of the cores that "
                f"Tensorize({chosen}) made: they would stay as they started. Optimizers hold "
                f"{_held_names(module, held)}. Take self.parameters() in configure_optimizers, or "
                f"the modules by name: a tensor train is no nn.Embedding. One that is not to be "
                f"trained is frozen by requires_grad_(False)."
            )


class GradientWatch:
    """Notices tensor trains that no gradient reaches.

    Args:
        trains: Tensor trains by name; those that are frozen are not expected to have any.
    """

    def __init__(self, trains: Mapping[str, Train]) -> None:
        own = {id(table): name for name, table in reversed(list(trains.items()))}  # its first name
        self._unseen = {name: trains[name] for name in own.values() if _trained(trains[name])}
        self._looked = False

    def look(self) -> None:
        """After a backward pass, before gradients are set to zero."""
        self._looked = True
        self._unseen = {
            name: table for name, table in self._unseen.items()
            if all(core.grad is None for core in _trained(table))
        }  # fmt: skip

    def warn(self, chosen: str) -> None:
        """Warns of those without gradients, if there was a backward pass to look at.

        Args:
            chosen: The argument of ``Tensorize`` that says which tables.
        """
        if self._unseen and self._looked:
            rank_zero_warn(
                f"Tensorize({chosen}): no gradient reached {', '.join(self._unseen)} in the first "
                f"training batch. If this batch should have trained it, the module still uses the "
                f"table that was replaced, by a list, a dict or a function that holds it: look it "
                f"up by its name in the module, or keep tables in nn.ModuleList or nn.ModuleDict."
            )


def _trained(table: Train) -> list[nn.Parameter]:
    """Parameters that are to have gradients after a backward pass."""
    wanted = (core for core in table.parameters() if core.requires_grad)
    # A hook of this kind may take a gradient as soon as it is there.
    return [core for core in wanted if not getattr(core, "_post_accumulate_grad_hooks", None)]


def _held_names(module: nn.Module, held: set[int]) -> str:
    names = [name for name, parameter in module.named_parameters() if id(parameter) in held]
    if not names:
        return f"{len(held)} tensors that are not parameters of {type(module).__name__}"
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
