"""Quantized against full precision, paired by seed: the experiment behind every claim."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_gnncompress.callbacks import QuantizationFinetuning, Quantize
from lit_gnncompress.callbacks.trainers import callbacks_of
from lit_gnncompress.results import Comparison, SeedResult

AnyCallback = TypeVar("AnyCallback", bound=Callback)
Build = Callable[[], tuple[Trainer, LightningModule, Any]]
"""Makes a Trainer, a module and its data anew; called once per seed, after seeding."""


def compare_by_seed(
    build: Build,
    seeds: Iterable[int],
    metric: str = "test_acc",
    on_result: Callable[[SeedResult], None] | None = None,
) -> Comparison:
    """Fits once per seed, and tests the best full-precision and the best quantized weights.

    Both come from one fit of :class:`QuantizationFinetuning`, chosen by its validation monitor;
    the test data are looked at once for each. Inputs that ``Quantize(packed=True)`` replaces are
    held, and put back after the quantized test, so that full precision means the features as they
    were, also where ``build`` gives the same data again.

    Args:
        build: Makes everything anew. The Trainer has both callbacks.
        seeds: Seeds of weights, dropout and whatever else is drawn.
        metric: Test metric, as the module logs it.
        on_result: Called after each seed, for instance to show progress.

    Raises:
        MisconfigurationException: A Trainer without the two callbacks, a fit that ends before the
            quantized phase, or an unknown metric.
        ValueError: No seeds.
    """
    results: list[SeedResult] = []
    for seed in seeds:
        seed_everything(seed, verbose=False)
        trainer, module, data = build()
        quantize, finetuning = _the(Quantize, trainer), _the(QuantizationFinetuning, trainer)
        # Full precision reads the inputs as they were, in this test and in the next fit.
        with quantize.keeping_inputs():
            trainer.fit(module, datamodule=data)
            if finetuning.full_precision_weights is None:
                raise MisconfigurationException(
                    "The fit ended before the quantized phase began, so there is nothing to "
                    "compare. Raise max_epochs, or give QuantizationFinetuning its `epochs`."
                )
            quantized = _test(trainer, module, data, metric)
            ledger = quantize.ledger
        module.load_state_dict(finetuning.full_precision_weights)
        quantize.enabled = False
        full_precision = _test(trainer, module, data, metric)
        results.append(SeedResult(seed, full_precision, quantized, trainer.current_epoch))
        if on_result is not None:
            on_result(results[-1])
    if not results:
        raise ValueError("seeds is empty: give at least one, and two for an interval.")
    return Comparison(metric, results, quantize.plan, ledger)


def _the(kind: type[AnyCallback], trainer: Trainer) -> AnyCallback:
    for callback in callbacks_of(trainer):
        if isinstance(callback, kind):
            return callback
    raise MisconfigurationException(
        f"A comparison needs a {kind.__name__} callback in the Trainer."
    )


def _test(trainer: Trainer, module: LightningModule, data: Any, metric: str) -> float:
    logged = trainer.test(module, datamodule=data, verbose=False)[0]
    if metric not in logged:
        raise MisconfigurationException(
            f"metric={metric!r} is not logged in test. Logged are: {', '.join(sorted(logged))}."
        )
    return float(logged[metric])
