"""Quantize: a plan put to work in any LightningModule."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from lit_gnncompress.callbacks.batches import BatchDegrees
from lit_gnncompress.callbacks.pack_inputs import ReplacedInputs, pack_inputs
from lit_gnncompress.callbacks.trainers import callbacks_of, check_strategy
from lit_gnncompress.callbacks.whole_graph import whole_graph
from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization.attention import AttentionGranularity
from lit_gnncompress.quantization.calibration import from_plain, to_plain
from lit_gnncompress.quantization.quantize import (
    Quantization,
    quantization_of,
    quantize_,
    remove_quantization,
)
from lit_gnncompress.quantization.quantizer import Quantizer, Rounding
from lit_gnncompress.quantization.ranges import Granularity, RangeMethod
from lit_gnncompress.quantization.sites import find_sites
from lit_gnncompress.report import print_ledger
from lit_gnncompress.storage.ledger import Ledger, ledger_of
from lit_gnncompress.storage.packed_sites import use_packed_form

Calibration = dict[str, list[Any]]
"""Ranges of hidden features by layer, see ``quantization.calibration.to_plain``."""

_LATE = (
    "Layers that {}.setup makes come too late, for Trainers set up callbacks first: make them in "
    "__init__ or configure_model."
)


class Quantize(Callback):
    """Stores node features and attention of a LightningModule in few bits (SGQuant).

    The module is not touched by hand: its message-passing and linear layers quantize what enters
    them from ``setup`` on, in training, validation, test and prediction alike, and gradients pass
    straight through. No state is added to the module, so checkpoints load with and without the
    callback. Logs ``quant/avg_bits`` and ``quant/saving`` (fp32 over all bytes that must be kept)
    at the end of each training and test epoch.

    For a plan by degree, the degrees of a full graph are counted in its edges. A sampled batch
    needs them from its node attribute ``degree_attr``, or by the ``n_id`` of its nodes from the
    graph of the datamodule (``data``) or of the loader; else they are counted in the batch, with
    a warning.

    Args:
        plan: Bits by layer, component and degree. Names are those of the LightningModule's
            layers, or their tails: ``convs.0`` for ``model.convs.0``.
        range: How the range of features is found: ``"mse"``, ``"minmax"`` or ``"percentile"``;
            for all layers, or a mapping from names or globs.
        granularity: Which features share a range: ``"auto"``, ``"tensor"``, ``"bucket"``,
            ``"column"`` or ``"row"``; likewise. See
            :class:`~lit_gnncompress.quantization.Quantizer`.
        rounding: ``"nearest"``, ``"floor"`` or ``"stochastic"``.
        percentile: Share of the values inside a percentile range.
        attention_range: How the range of attention is found.
        attention_granularity: Which coefficients share it: those of a degree ``"bucket"``, or of a
            receiving ``"node"``.
        renormalize: Whether a node's attention sums to 1 again after rematching.
        degree_attr: Node attribute with the degree in the whole graph, int of shape ``(N,)``.
        packed: Whether bits are kept as bits. Input features that one layer reads are replaced
            by a :class:`~lit_gnncompress.storage.PackedTensor` after the first training step: in
            the datamodule's ``data``, in the graph that a loader of PyG samples from or that is the
            only one of a dataset, and in a batch that comes a second time. Layers send no
            messages of E × F, and test and prediction keep hidden features packed, with ranges
            that hold those of all batches of the latest validation (the first batch finds them
            where there was none). What else reads the inputs gets what their codes stand for, a
            later fit included; :meth:`remove` puts those back that somebody else still holds.
        verbose: Whether the ledger is printed after fit and test.

    Raises:
        MisconfigurationException: Two of these callbacks, a strategy that shards modules, layers
            that ``LightningModule.setup`` makes, or a fit that resumes from another plan.
        ValueError: A plan that does not fit the module, or ``packed`` codes rounded down.

    Example:
        >>> from lit_gnncompress import BitPlan
        >>> quantize = Quantize(BitPlan(features=4, attention=8))
        >>> # Trainer(callbacks=[quantize]).fit(module, data); then
        >>> quantize.ledger.rows
        []
    """

    def __init__(
        self,
        plan: BitPlan,
        range: RangeMethod | dict[str, RangeMethod] = "mse",
        granularity: Granularity | dict[str, Granularity] = "auto",
        rounding: Rounding = "nearest",
        percentile: float = 0.99,
        attention_range: RangeMethod = "minmax",
        attention_granularity: AttentionGranularity = "bucket",
        renormalize: bool = True,
        degree_attr: str = "deg",
        packed: bool = False,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(plan, BitPlan):
            raise TypeError(
                f"plan={plan!r} is a {type(plan).__name__}: give a BitPlan, for instance "
                f"BitPlan(features=4), or BitPlan.from_dict(...)."
            )
        Quantizer(rounding=rounding, percentile=percentile)  # checks both
        if packed and rounding == "floor":
            raise ValueError(
                "packed=True packs codes rounded to nearest, rounding='floor' would train others: "
                "leave one of them out."
            )
        self.plan = plan
        self.packed = packed
        self.verbose = verbose
        self._options: dict[str, Any] = {
            "range": range,
            "granularity": granularity,
            "rounding": rounding,
            "percentile": percentile,
            "attention_range": attention_range,
            "attention_granularity": attention_granularity,
            "renormalize": renormalize,
        }
        self._degrees = BatchDegrees(degree_attr)
        self._replaced = ReplacedInputs()
        self._quantization: Quantization | None = None
        self._enabled = True

    @property
    def quantization(self) -> Quantization:
        """The plan at work.

        Raises:
            RuntimeError: Before ``setup``.
        """
        if self._quantization is None:
            raise RuntimeError("Quantize has no module yet: it gets one in Trainer.fit or test.")
        return self._quantization

    @property
    def enabled(self) -> bool:
        """Whether the module quantizes; settable."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        if self._quantization is not None:
            self._quantization.enabled = enabled

    @property
    def ledger(self) -> Ledger:
        """Bytes of every site, of the matrices that passed last; empty before the first pass."""
        return Ledger() if self._quantization is None else ledger_of(self._quantization)

    @property
    def calibration(self) -> Calibration:
        """Ranges of hidden features by layer, found in validation, as plain numbers; settable."""
        if self._quantization is None or not self.packed:
            return {}
        return to_plain(self._quantization.calibrated)

    @calibration.setter
    def calibration(self, calibration: Calibration) -> None:
        self.quantization.calibrated = from_plain(calibration)

    def remove(self) -> None:
        """Gives the module back as it was; nothing happens where there is none.

        Inputs that were replaced by packed ones are put back where they still exist: where somebody
        else holds them. Others stay packed.
        """
        if self._quantization is not None:
            self._quantization.remove()
            self._quantization = None
        self._replaced.put_back()

    def keeping_inputs(self) -> AbstractContextManager[None]:
        """Holds what ``packed=True`` replaces in the meantime, and puts it back in the end."""
        return self._replaced.kept()

    # --- hooks ------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Puts the plan to work, once per module."""
        self._check(trainer)
        if self._quantization is not None and self._quantization.is_of(pl_module):
            return
        if is_overridden("configure_model", pl_module):
            pl_module.configure_model()  # Lightning calls it after setup; it may be called twice
        remove_quantization(pl_module)  # of another callback, in an earlier Trainer
        try:
            self._quantization = quantize_(pl_module, self.plan, **self._options)
        except ValueError as error:
            if not is_overridden("setup", pl_module):
                raise
            raise ValueError(f"{error} {_LATE.format(type(pl_module).__name__)}") from error
        self._quantization.enabled = self._enabled
        use_packed_form(self._quantization, self.packed)

    def _check(self, trainer: Trainer) -> None:
        if sum(isinstance(callback, Quantize) for callback in callbacks_of(trainer)) > 1:
            raise MisconfigurationException(
                "The Trainer has two Quantize callbacks. Give one, whose plan names all layers."
            )
        check_strategy(trainer, self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses layers that were made after ``setup``, which nobody would quantize."""
        self._refuse_late_layers(pl_module)

    def _refuse_late_layers(self, pl_module: LightningModule) -> None:
        if not is_overridden("setup", pl_module):
            return
        late = [s.name for s, layer in find_sites(pl_module).items() if not quantization_of(layer)]
        if late:
            raise MisconfigurationException(
                f"{', '.join(dict.fromkeys(late))}: not quantized, for Quantize has not seen it. "
                f"{_LATE.format(type(pl_module).__name__)}"
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Tells the layers about the batch's graph."""
        self._begin_step(trainer, batch)

    def _begin_step(self, trainer: Trainer, batch: Any, dataloader_idx: int | None = None) -> None:
        self._degrees.whole_graph = whole_graph(trainer, dataloader_idx)
        self._degrees.publish(self.quantization.context, batch)
        self.quantization.context.begin_step()

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Ends the step: some optimizers run it again, on the same batch."""
        if pl_module.automatic_optimization:
            self.quantization.context.begin_step()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets ranges that belong to older weights: only training changes them."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._refuse_late_layers(pl_module)
        self.quantization.context.calibrating = trainer.state.fn == TrainerFn.FITTING
        if self.quantization.context.calibrating:
            self.quantization.calibrated = {}

    on_test_start = on_predict_start = on_validation_start

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Tells the layers about the batch's graph."""
        self._begin_step(trainer, batch, dataloader_idx)

    on_test_batch_start = on_validation_batch_start
    on_predict_batch_start = on_validation_batch_start

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Puts packed features in the place of those that a layer has just read."""
        if self.packed and self.enabled:
            pack_inputs(self.quantization, batch, self._degrees, self._replaced)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what the plan saves."""
        if self.enabled:
            ledger = ledger_of(self.quantization)
            for name, value in (("avg_bits", ledger.average_bits), ("saving", ledger.saving_real)):
                # Processes have batches, and so ledgers, of their own.
                pl_module.log(f"quant/{name}", value, batch_size=1, sync_dist=True)

    on_test_epoch_end = on_train_epoch_end

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the ledger, and forgets the graph: later calls may be about another."""
        self._forget_graph()
        if self.verbose and self.enabled and trainer.is_global_zero:
            print_ledger(self.ledger)

    on_test_end = on_fit_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the graph."""
        self._forget_graph()

    on_predict_end = on_validation_end

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Forgets the graph."""
        if self._quantization is not None:
            self._forget_graph()

    def _forget_graph(self) -> None:
        self.quantization.context.clear()
        self._degrees.whole_graph = None

    def state_dict(self) -> dict[str, Any]:
        """The plan, so that a resumed fit can be checked against it, and the ranges found."""
        return {"plan": self.plan.to_dict(), "calibration": self.calibration}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the ranges."""
        if self.packed and self._quantization is not None:
            self.calibration = state_dict.get("calibration", {})

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuses to resume a fit under another plan; testing one is welcome."""
        saved = checkpoint.get("callbacks", {}).get(self.state_key)
        if trainer.state.fn == TrainerFn.FITTING and saved and saved["plan"] != self.plan.to_dict():
            raise MisconfigurationException(
                f"The checkpoint was trained under the plan {saved['plan']}, this fit has the plan "
                f"{self.plan.to_dict()}. Resume under the checkpoint's plan, or start a new fit "
                f"from its weights: load_from_checkpoint, then fit without ckpt_path."
            )
