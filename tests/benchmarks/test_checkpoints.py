"""Plans are measured on checkpoints as they were trained, with a margin for chance."""

import copy

import lightning as L
import pytest
import torch

from benchmarks import recipes
from benchmarks.checkpoints import PairedCheckpoints
from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import QuantizationFinetuning
from lit_gnncompress.data import GraphDataModule


@pytest.fixture(scope="module", autouse=True)
def _short_fits():
    def finetuning(**arguments):
        return QuantizationFinetuning(**arguments | {"patience": 3})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "QuantizationFinetuning", finetuning)
        yield


@pytest.fixture(scope="module")
def checkpoints():
    data = GraphDataModule("digits")
    fits = []
    found = PairedCheckpoints("digits", "gcn", data, [3, 4], lambda: fits.append(1))
    assert len(fits) == 2
    return found


def test_full_precision_has_no_margin(checkpoints):
    accuracy = checkpoints._right(BitPlan(), "val").mean()
    assert 0.5 < accuracy < 1
    assert checkpoints.validation(BitPlan()) == pytest.approx(float(accuracy))
    assert checkpoints.test_delta(BitPlan()) == [0.0, 0.0]


def test_a_plan_is_measured_by_the_lower_bound_of_its_difference(checkpoints):
    plan = BitPlan(2)
    gain = (checkpoints._right(plan, "val") - checkpoints._right(BitPlan(), "val")).mean(dim=0)
    error = float(gain.std()) / len(gain) ** 0.5
    expected = float(checkpoints._right(plan, "val").mean()) - 1.645 * error
    assert checkpoints.validation(plan) == pytest.approx(expected)
    assert checkpoints.validation(plan) < float(checkpoints._right(plan, "val").mean())


def test_weights_are_those_of_the_last_epoch_in_full_precision(checkpoints):
    epochs = []

    class Keep(L.Callback):
        def on_train_epoch_end(self, trainer, module):
            epochs.append((trainer.callbacks[1].quantized, copy.deepcopy(module.state_dict())))

    L.seed_everything(3, verbose=False)
    trainer, module, data = recipes.build(
        "digits", "gcn", GraphDataModule("digits"), epochs=1, callbacks=[Keep()]
    )
    trainer.fit(module, datamodule=data)
    [*_, expected] = [weights for quantized, weights in epochs if not quantized]
    found, best = checkpoints._weights[0], trainer.callbacks[1].full_precision_weights
    assert epochs[-1][0]
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert any(not torch.equal(found[name], best[name]) for name in found)


def test_ranges_are_those_of_the_fits(checkpoints):
    trainer, module, _ = recipes.build("digits", "gcn", GraphDataModule("digits"), epochs=1)
    trainer.callbacks[0].setup(trainer, module, "fit")
    expected = trainer.callbacks[0].quantization.context.options
    quantization = checkpoints._quantized(BitPlan(4))
    assert quantization.context.options == expected
    quantization.remove()
