"""CompressActivations: what training keeps for the backward pass, in 1 to 8 bits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lit_gnncompress.callbacks.trainers import check_strategy
from lit_gnncompress.storage.activations import ActivationCompressor


class CompressActivations(Callback):
    """Keeps activations of the training step in few bits until the backward pass (EXACT).

    Nothing changes in the forward pass, nor in validation, test and prediction. Gradients are those
    of stochastically rounded activations: right on average, with noise that grows as ``bits`` fall.
    What is compressed, and how, tells
    :class:`~lit_gnncompress.storage.activations.ActivationCompressor`; the batch's own tensors,
    which the data keeps anyway, are not.

    Rounding depends on the seed of torch (``seed_everything``), the process, the epoch, the batch
    and the order of tensors: the same fit twice gives the same weights, and so does one that
    resumes from a checkpoint. No random numbers are drawn, so dropout is as it is without.

    Automatic and manual optimization both work, with gradient accumulation, several optimizers and
    closures that run more than once. Graphs compiled by ``torch.compile`` and autograd functions of
    other packages keep what they save as it is.

    Logs ``activations/saved_bytes`` and ``activations/fp32_bytes``, of the last step of each epoch.

    Args:
        bits: Bits of a value, 1 to 8. Smooth functions such as ELU and softmax keep 8 at least.
        min_elements: Tensors with fewer elements stay as they are.

    Raises:
        MisconfigurationException: Bits outside 1 to 8, a negative size, two of these callbacks, or
            a strategy that shards modules.

    Example:
        >>> compress = CompressActivations(bits=4)
        >>> # Trainer(callbacks=[compress]).fit(module, data); then
        >>> compress.kept_bytes, compress.full_bytes
        (0, 0)
    """

    def __init__(self, bits: int = 4, min_elements: int = 4096) -> None:
        super().__init__()
        try:
            self._compressor = ActivationCompressor(bits, min_elements)
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error
        self.bits = bits
        self.min_elements = min_elements
        self._seed: int | None = None
        self._resumed_seed: int | None = None
        self._step: tuple[int, ...] = ()
        self._wrapped: tuple[LightningModule, _CompressedStep] | None = None

    @property
    def kept_bytes(self) -> int:
        """Bytes that the last training step kept of activations."""
        return self._compressor.kept_bytes

    @property
    def full_bytes(self) -> int:
        """Bytes that it would have kept without this callback."""
        return self._compressor.full_bytes

    # --- hooks ------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the Trainer."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if sum(isinstance(callback, CompressActivations) for callback in callbacks) > 1:
            raise MisconfigurationException(
                "The Trainer has two CompressActivations callbacks. Give one."
            )
        check_strategy(trainer, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gets between the Trainer and the training step."""
        self._unwrap()
        if self._resumed_seed is not None:
            self._seed = self._resumed_seed
        else:
            self._seed = torch.initial_seed()
        self._resumed_seed = None
        # The Trainer's own hooks begin before the forward pass only once a batch, while a step may
        # run more than once, or go forward and backward by turns.
        step = _CompressedStep(self, pl_module)
        pl_module.training_step = step  # type: ignore[assignment]
        self._wrapped = pl_module, step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Takes the place of the batch in the fit."""
        assert self._seed is not None
        self._step = (self._seed, trainer.global_rank, trainer.current_epoch, batch_idx)
        self._compressor.reset()
        if self._wrapped is not None:
            self._wrapped[1].count = 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what the last step kept."""
        for name, value in (("saved_bytes", self.kept_bytes), ("fp32_bytes", self.full_bytes)):
            # Processes have batches of their own.
            pl_module.log(f"activations/{name}", float(value), batch_size=1, sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the training step back."""
        self._unwrap()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Gives the training step back."""
        self._unwrap()

    def state_dict(self) -> dict[str, Any]:
        """The seed, so that a resumed fit rounds as the one that it goes on with."""
        return {"seed": self._seed}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes the seed, if a fit resumes."""
        if trainer.state.fn == TrainerFn.FITTING:
            saved = checkpoint.get("callbacks", {}).get(self.state_key) or {}
            self._resumed_seed = saved.get("seed")

    def _unwrap(self) -> None:
        if self._wrapped is not None:
            pl_module, step = self._wrapped
            if vars(pl_module).get("training_step") is step:
                del pl_module.training_step
                if step.is_own:
                    pl_module.training_step = step.step  # type: ignore[method-assign]
            self._wrapped = None


class _CompressedStep:
    """A module's training step, which saves compressed activations."""

    def __init__(self, callback: CompressActivations, pl_module: LightningModule) -> None:
        self.is_own = "training_step" in vars(pl_module)  # of the object, as a compiled one is
        self.step: Callable[..., Any] = pl_module.training_step
        self.count = 0
        self._callback = callback
        self._module = pl_module
        functools.update_wrapper(self, self.step)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        callback, module = self._callback, self._module
        self.count += 1
        with callback._compressor.forward(
            chain(module.parameters(), module.buffers()),
            _tensors_in((args, kwargs)),
            (*callback._step, self.count),
        ):
            return self.step(*args, **kwargs)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Tensors of a batch, which may be nested; those of PyG's graphs, too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors_in(inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from _tensors_in(inner)
    elif hasattr(value, "stores"):
        for store in value.stores:
            yield from _tensors_in(dict(store))
