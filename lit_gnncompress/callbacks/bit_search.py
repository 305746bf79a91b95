"""BitSearch: finds the plan with the largest saving, after the full-precision fit."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.parameter import UninitializedParameter

from lit_gnncompress.callbacks.across_ranks import AcrossRanks
from lit_gnncompress.callbacks.best_weights import BestWeights, digest, weights_in
from lit_gnncompress.callbacks.finetune import QuantizationFinetuning
from lit_gnncompress.callbacks.inner_fits import (
    InnerFits,
    Weights,
    copy_of,
    logged_by,
    put_to_work,
)
from lit_gnncompress.callbacks.quantize import Quantize
from lit_gnncompress.callbacks.search_progress import search_progress
from lit_gnncompress.callbacks.trainers import (
    callbacks_of,
    check_no_averaging,
    spawns_processes,
)
from lit_gnncompress.plan import FULL_PRECISION, BitPlan
from lit_gnncompress.search.search import Job, Search, SearchResult, check_numbers
from lit_gnncompress.search.space import Count, Group, Space, check_choice, checked_bits
from lit_gnncompress.search.trials import Trial, refuse_other_search
from lit_gnncompress.search_report import print_search, write_search_report
from lit_gnncompress.storage.site_sizes import site_sizes


class BitSearch(Callback):
    """Searches for bits after the fit (SGQuant's ABS, arXiv 2007.05100, section V).

    The fit itself is in full precision. When it ends, the search begins from its best weights: it
    measures plans by validation, fine-tunes those that deserve it, and learns which to measure
    next. In the end the module holds the fine-tuned weights of the best plan, and
    :class:`Quantize`, which the Trainer needs beside this callback, holds the plan, so that
    ``trainer.test`` is quantized. If no plan is within ``max_drop``, both stay in full precision,
    with a warning.

    The plan that ``Quantize`` was given is where the search starts, together with uniform plans
    and a sensitivity scan; its degree buckets are those that the search gives bits to.

    ``dirpath`` gets ``trials.jsonl``, to which each measurement is added when it is known,
    ``best.pt`` (plan and weights), and a report: ``search.json``, ``trials.csv``, ``search.png``.
    The same command goes on where it was interrupted, if its fit ends in the same weights: give it
    a seed.

    Under ``strategy="ddp"`` each process measures other plans, on all of the data. Inner fits take
    the accelerator, precision, batch limits and gradient settings of the Trainer, not its loggers
    and other callbacks.

    Args:
        monitor: Logged validation metric.
        mode: Whether the ``monitor`` is best at its ``"min"`` or ``"max"``.
        trials: Plans that are measured at most.
        max_drop: How much worse than in full precision the monitor may be, in its own unit: 0.004
            of an accuracy are 0.4 points.
        finetune_epochs: Length of a fine-tuning; 0 for none.
        lr_scale: Factor on the learning rates in fine-tuning.
        bits: Bits to choose from.
        attention_bits: Those of attention, where it is chosen by itself; the same if ``None``. With
            32 among them it may stay as it is.
        group: What is chosen together, see :class:`~lit_gnncompress.search.Space`: ``"bucket"``,
            ``"site"``, ``"layer"``, ``"component"``, ``"all"``, or ``"auto"``.
        count: What a saving counts: ``"paper"``, codes of features; ``"stored"``, all that must be
            kept, with 32 bits for inputs standing for their smallest exact form.
        n_measured: Plans in a batch; the cost model learns after each.
        n_sampled: Plans that the cost model predicts for each batch.
        seed: Seed of the search and of its fine-tunings.
        checkpoints: More full-precision checkpoints of the module, from other seeds. A plan's
            score is the average over all, which a single one flatters.
        dirpath: Folder of the search; by default ``bit_search`` in the Trainer's
            ``default_root_dir``.
        verbose: Whether a table is printed in the end.

    Attributes:
        result: All that was found; ``None`` before.
        full_precision_score: Monitor of the weights that the search started from.

    Raises:
        ValueError: Arguments that are out of range.
        MisconfigurationException: A Trainer without :class:`Quantize`, or with
            :class:`QuantizationFinetuning` or a callback that averages weights; a strategy that
            starts its processes by spawn or fork; a ``monitor`` that is not logged or that differs
            between processes.

    Example:
        >>> from lit_gnncompress import BitPlan
        >>> search = BitSearch(monitor="val_acc", mode="max", trials=40)
        >>> # Trainer(callbacks=[Quantize(BitPlan()), search]).fit(module, data); then
        >>> search.best, search.trials
        (None, [])
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"],
        trials: int = 40,
        max_drop: float = 0.004,
        finetune_epochs: int = 20,
        lr_scale: float = 0.1,
        bits: Sequence[int] = (1, 2, 4, 8),
        attention_bits: Sequence[int] | None = None,
        group: Group = "auto",
        count: Count = "paper",
        n_measured: int = 8,
        n_sampled: int = 500,
        seed: int = 0,
        checkpoints: Sequence[str] = (),
        dirpath: str | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        check_choice("mode", mode, ("min", "max"))
        check_choice("group", group, get_args(Group))
        check_choice("count", count, get_args(Count))
        check_numbers(max_drop, trials, n_measured, n_sampled, None, seed)
        if finetune_epochs < 0:
            raise ValueError(f"finetune_epochs={finetune_epochs} must be 0 or more.")
        if not lr_scale > 0:
            raise ValueError(f"lr_scale={lr_scale} must be positive.")
        if isinstance(checkpoints, str):
            raise ValueError(f"checkpoints={checkpoints!r} must be a list of files.")
        self.monitor = monitor
        self.mode: Literal["min", "max"] = mode
        self.max_drop = max_drop
        self.finetune_epochs = finetune_epochs
        self.lr_scale = lr_scale
        self.bits = checked_bits(bits)
        own = self.bits if attention_bits is None else attention_bits
        self.attention_bits = checked_bits(own, "attention_bits")
        self.group: Group = group
        self.count: Count = count
        self.checkpoints = [str(path) for path in checkpoints]
        self.dirpath = dirpath
        self.verbose = verbose
        self.seed = seed
        self._settings: dict[str, Any] = {
            "max_drop": max_drop,
            "mode": mode,
            "trials": trials,
            "n_measured": n_measured,
            "n_sampled": n_sampled,
            "seed": seed,
            "finetune": finetune_epochs > 0,
        }
        self.result: SearchResult | None = None
        self.full_precision_score: float | None = None
        self._full_precision: Weights | None = None
        self._resumed = False

    @property
    def best(self) -> Trial | None:
        """The trial whose plan the module has: plan, accuracy, bytes, saving."""
        return None if self.result is None else self.result.best

    @property
    def trials(self) -> list[Trial]:
        """All trials."""
        return [] if self.result is None else self.result.trials

    # --- the fit in full precision ----------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the Trainer."""
        if stage != "fit":
            return
        quantizers = [c for c in callbacks_of(trainer) if isinstance(c, Quantize)]
        if not quantizers:
            raise MisconfigurationException(
                "BitSearch needs a Quantize callback in the Trainer, for instance "
                "Quantize(BitPlan()): it gets the plan that is found."
            )
        self._quantize = quantizers[0]
        if any(isinstance(c, QuantizationFinetuning) for c in callbacks_of(trainer)):
            raise MisconfigurationException(
                "BitSearch fine-tunes the plans that it finds, after a fit in full precision: "
                "leave QuantizationFinetuning out, and set BitSearch's finetune_epochs."
            )
        check_no_averaging(trainer, self, "BitSearch, with max_epochs=0")
        if trainer.limit_val_batches == 0:
            raise MisconfigurationException(
                "BitSearch measures plans by validation, and limit_val_batches=0 runs none."
            )
        if spawns_processes(trainer):
            raise MisconfigurationException(
                "BitSearch does not work with strategies that spawn or fork processes for a "
                "single fit (ddp_spawn, ddp_fork, ddp_notebook): use strategy='ddp', whose "
                "processes stay for the fits of the search, or a single device."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turns quantization off."""
        if not self._resumed:
            self._full_precision = self.full_precision_score = None
        self.result = None
        self._resumed = False
        self._ranks = AcrossRanks(trainer)
        self._quantize.enabled = False
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            # Better told now than after the fit.
            settings = self._settings | {"recipe": self._quantize.plan.to_dict()}
            del settings["trials"]  # more of them go on with the same file
            known = {"settings": settings, "about": self._about(pl_module)}
            self._ranks.from_zero(
                lambda: refuse_other_search(self._folder(trainer) / "trials.jsonl", known)
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the best weights."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        if self.monitor not in trainer.callback_metrics:
            raise MisconfigurationException(
                f"monitor={self.monitor!r} is not logged in validation. Logged are: "
                f"{logged_by(trainer)}."
            )
        score = float(trainer.callback_metrics[self.monitor])
        self._check_synchronised(score)
        best = self.full_precision_score
        sign = 1 if self.mode == "max" else -1
        if best is None or math.isnan(best) or sign * score > sign * best:
            self.full_precision_score, self._full_precision = score, copy_of(pl_module)

    def _check_synchronised(self, score: float) -> None:
        if self._ranks.size == 1:
            return
        scores = self._ranks.from_all(lambda: score)
        if len({str(one) for one in scores}) > 1:
            raise MisconfigurationException(
                f"monitor={self.monitor!r} differs between processes "
                f"({', '.join(f'{one:.6g}' for one in scores)}), which would go on from different "
                f"epochs: log it with sync_dist=True."
            )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leaves the module in full precision."""
        if trainer.state.fn == TrainerFn.FITTING and hasattr(self, "_quantize"):
            self._quantize.enabled = False

    # --- the search -------------------------------------------------------------------------

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Searches."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn("fast_dev_run: the bit search is skipped.")
            self._quantize.enabled = True
            return
        if self._full_precision is not None:
            pl_module.load_state_dict(self._full_precision)
        else:
            self._full_precision = copy_of(pl_module)  # a fit of no epochs: trained before
        fits = InnerFits(
            trainer,
            pl_module,
            self._quantize,
            self.monitor,
            self.mode,
            self.finetune_epochs,
            self.lr_scale,
        )
        self._weights = [self._full_precision, *map(weights_in, self.checkpoints)]
        with self._restored_on_error(pl_module), fits.prepared():
            recipe = self._quantize.plan
            best = self._search(trainer, pl_module, fits, recipe)
        self._conclude(trainer, pl_module, recipe, best)

    def _search(
        self, trainer: Trainer, pl_module: LightningModule, fits: InnerFits, recipe: BitPlan
    ) -> Weights:
        """Fills :attr:`result`, and returns the weights of the best plan."""
        ranks, folder = self._ranks, self._folder(trainer)
        space = ranks.from_zero(lambda: self._space(fits, recipe))
        fit = digest(self._weights)
        about = self._about(pl_module) | {"weights": fit}
        search = ranks.from_zero_only(
            lambda: Search(
                space, recipe=recipe, path=folder / "trials.jsonl", about=about, **self._settings
            )
        )
        tuned = BestWeights(fit, folder)
        with search_progress(trainer, self._settings["trials"]) as show:
            while jobs := ranks.from_zero(lambda: search.ask()):
                for start in range(0, len(jobs), ranks.size):
                    shared = jobs[start : start + ranks.size]
                    mine = shared[ranks.rank] if ranks.rank < len(shared) else None
                    found = ranks.from_all(partial(self._measured, fits, mine, tuned))
                    if ranks.rank == 0:
                        for job, (score, seconds) in zip(shared, found, strict=False):
                            search.tell(job, score, seconds)
                        show(search)
                tuned.drop_all_but(ranks.from_zero(lambda: search.best))
        self.result = ranks.from_zero(lambda: search.result)
        assert self._full_precision is not None
        best, full_precision = self.best, self._full_precision
        if best is None or best.finetuned is None:
            return full_precision
        seed = Job.seed_of("finetuned", best.number, self.seed)
        again = partial(fits.finetuned, best.plan, full_precision, seed)
        return tuned.of(best, ranks, lambda: again()[1])

    def _space(self, fits: InnerFits, recipe: BitPlan) -> Space:
        """The space of plans, from a validation under uniform plans."""
        assert self._full_precision is not None
        splits = {
            "degree_splits": recipe.degree_splits,
            "degree_quantiles": recipe.degree_quantiles,
        }
        ledgers = {}
        # The paper's count needs no bytes but those of the codes.
        looked_at = {*self.bits, *self.attention_bits, FULL_PRECISION}
        if self.count == "paper":
            looked_at = {self.bits[-1]}
        for bits in sorted(looked_at):
            ledgers[bits] = fits.ledger(bits, splits, self._full_precision, self.seed)
        sizes = site_sizes(ledgers, recipe.num_buckets)
        return Space(
            sizes,
            self.bits,
            self.group,
            count=self.count,
            attention_bits=self.attention_bits,
            **splits,  # type: ignore[arg-type]
        )

    def _measured(
        self, fits: InnerFits, job: Job | None, tuned: BestWeights
    ) -> tuple[float, float]:
        """The average score of a job over the checkpoints, and how long it took."""
        if job is None:
            return math.nan, 0.0
        start = time.perf_counter()
        scores = []
        for place, weights in enumerate(self._weights):
            if job.stage != "finetuned":
                scores.append(fits.score(job.plan, weights, job.seed))
                continue
            score, fine = fits.finetuned(job.plan, weights, job.seed)
            scores.append(score)
            if place == 0:
                tuned.keep(job.number, fine)
        return sum(scores) / len(scores), time.perf_counter() - start

    # --- before and after -------------------------------------------------------------------

    def _conclude(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        recipe: BitPlan,
        weights: Weights,
    ) -> None:
        best = self.best
        pl_module.load_state_dict(weights)
        put_to_work(self._quantize, recipe if best is None else best.plan)
        self._quantize.enabled = best is not None
        self._quantize.setup(trainer, pl_module, "fit")
        assert self.result is not None
        if best is None:
            lowest = min((trial.drop for trial in self.trials), default=math.nan)
            rank_zero_warn(
                f"max_drop={self.max_drop:g}: no plan is within it, not even the highest bits. "
                f"The least drop of {len(self.trials)} trials is {lowest:.4g}, from "
                f"{self.monitor} {self.result.baseline:.4g}. The module stays in full precision; "
                f"raise max_drop or finetune_epochs."
            )
        if trainer.is_global_zero:
            paths = write_search_report(self.result, self._folder(trainer))
            if self.verbose:
                print_search(self.result, self.monitor, paths)

    @contextmanager
    def _restored_on_error(self, pl_module: LightningModule) -> Iterator[None]:
        recipe = self._quantize.plan
        try:
            yield
        except BaseException:
            assert self._full_precision is not None
            put_to_work(self._quantize, recipe)
            self._quantize.enabled = False
            pl_module.load_state_dict(self._full_precision)
            raise

    def _folder(self, trainer: Trainer) -> Path:
        default = Path(trainer.default_root_dir) / "bit_search"
        return default if self.dirpath is None else Path(self.dirpath)

    def _about(self, pl_module: LightningModule) -> dict[str, Any]:
        """What tells a search of this module from others, as far as is known before its fit."""
        shapes = [
            f"{name} {'lazy' if isinstance(p, UninitializedParameter) else tuple(p.shape)}"
            for name, p in pl_module.named_parameters()
        ]
        return {
            "module": type(pl_module).__qualname__,
            "parameters": hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16],
            "monitor": self.monitor,
            "bits": list(self.bits),
            "attention_bits": list(self.attention_bits),
            "group": self.group,
            "count": self.count,
            "finetune_epochs": self.finetune_epochs,
            "lr_scale": self.lr_scale,
        }

    # --- state ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The best weights in full precision, and whether the search is over."""
        return {
            "score": self.full_precision_score,
            "weights": self._full_precision,
            "searched": self.result is not None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from these."""
        self.full_precision_score = state_dict["score"]
        self._full_precision = state_dict["weights"]

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tells a fit that resumes from a test, which weights before the search are not fit for."""
        self._resumed = trainer.state.fn == TrainerFn.FITTING
        saved = checkpoint.get("callbacks", {}).get(self.state_key)
        if not self._resumed and saved is not None and not saved["searched"]:
            rank_zero_warn(
                "The checkpoint is of the fit before the bit search: its weights were never "
                "trained for the plan that they are measured under. Leave ckpt_path out after a "
                "search, whose best weights the module has."
            )
