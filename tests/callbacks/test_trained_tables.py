"""Fits that would not train the tensor trains, though tables were replaced."""

import warnings

import lightning.pytorch.callbacks as lightning_callbacks
import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lit_gnncompress.callbacks import Tensorize
from lit_gnncompress.embedding import TTEmbedding
from tests.callbacks.test_tensorize import NODES, WIDTH, Vectors, fit, make_module, tensorize


class ByType(Vectors):
    """Gives its optimizer the tables by their type, and all other layers."""

    def configure_optimizers(self):
        tables = [m.weight for m in self.modules() if isinstance(m, nn.Embedding)]
        return torch.optim.Adam([*tables, *self.conv.parameters()], lr=self.lr)


class MadeAnew(Vectors):
    """Makes its table in ``configure_model``, whether there is one or not."""

    def configure_model(self):
        self.net.embedding = nn.Embedding(NODES, WIDTH)


class MadeOnce(Vectors):
    """Makes its table in ``configure_model``, where there is none."""

    def __init__(self):
        super().__init__()
        self.net.embedding = None

    def configure_model(self):
        if self.net.embedding is None:
            self.net.embedding = nn.Embedding(NODES, WIDTH)


class MadeMore(Vectors):
    """Makes a table in ``setup`` that a glob would have named."""

    def setup(self, stage):
        self.more = nn.Embedding(NODES, WIDTH)


class ByReference(Vectors):
    """Looks rows up in a table that a plain dict holds."""

    def __init__(self):
        super().__init__()
        self.held = {"embedding": self.net.embedding}

    def forward(self, batch):
        x = torch.cat([self.held["embedding"].weight, self.other.weight], dim=1)
        return self.conv(x, batch.edge_index)


# --- places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "names", "name"),
    [(MadeAnew, ["embedding"], "net.embedding"), (MadeMore, ["*"], "more")],
)
def test_a_table_made_after_they_were_replaced_is_refused(module, names, name):
    with pytest.raises(MisconfigurationException, match=f"'{name}' is .* Embedding is there"):
        fit(module(), tensorize(names))


def test_a_table_taken_out_again_is_refused():
    module = make_module()
    module.setup = lambda stage: module.net.__delattr__("embedding")
    with pytest.raises(MisconfigurationException, match=r"embedding' is to be .* but nothing"):
        fit(module, tensorize())


def test_a_table_that_configure_model_makes_once_is_replaced():
    module = MadeOnce()
    fit(module, tensorize(), max_epochs=1)
    assert isinstance(module.net.embedding, TTEmbedding)


# --- optimizers -----------------------------------------------------------------------------------


def test_the_optimizer_holds_the_cores_and_not_the_table():
    module = make_module()
    trainer = fit(module, tensorize(), max_epochs=1)
    held = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert held == {id(p) for p in module.parameters()}


def test_an_optimizer_made_too_early_is_refused():
    module = make_module()
    early = torch.optim.Adam(module.parameters())
    module.configure_optimizers = lambda: early
    with pytest.raises(MisconfigurationException, match="in configure_optimizers"):
        fit(module, tensorize())


def test_cores_in_no_optimizer_are_refused_unless_they_are_frozen():
    held = "other.weight, conv.lin_l.weight, conv.lin_l.bias, conv.lin_r.weight"
    message = f"No optimizer holds 'net.embedding.cores.0'.* hold {held}"
    with pytest.raises(MisconfigurationException, match=message):
        fit(ByType(), tensorize())
    module = ByType()
    module.net.embedding.requires_grad_(False)
    fit(module, tensorize(start="table"), max_epochs=1)


def test_a_fit_without_optimizers_is_left_to_lightning():
    module = make_module()
    module.configure_optimizers = lambda: None
    fit(module, tensorize(), max_epochs=1)


# --- gradients ------------------------------------------------------------------------------------


def test_a_table_that_is_used_by_another_reference_is_told_once():
    with pytest.warns(UserWarning, match="no gradient reached net.embedding in the") as told:
        fit(ByReference(), tensorize(["embedding", "other"]), max_epochs=2)
    assert sum("no gradient" in str(each.message) for each in told) == 1


@pytest.mark.parametrize("frozen", [True, False])
def test_tables_that_are_trained_or_frozen_are_not_told_of(frozen):
    module = make_module()
    module.net.embedding.requires_grad_(not frozen)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no gradient reached.*")
        fit(module, tensorize(["embedding", "other"], start="table"), max_epochs=1)


# --- copies ---------------------------------------------------------------------------------------


def averaging():
    made = [StochasticWeightAveraging(1e-2, swa_epoch_start=1)]
    if hasattr(lightning_callbacks, "EMAWeightAveraging"):
        made.append(lightning_callbacks.EMAWeightAveraging())
    return made


@pytest.mark.parametrize("average", averaging(), ids=lambda each: type(each).__name__)
def test_callbacks_that_copy_the_module_come_after(average):
    name = type(average).__name__
    with pytest.raises(MisconfigurationException, match=f"{name} comes before Tensorize.*put"):
        fit(make_module(), average, tensorize())
    module = make_module()
    fit(module, tensorize(), average, max_epochs=3)
    assert isinstance(module.net.embedding, TTEmbedding)
    fit(module, average, Tensorize(["embedding"], rank=2, rows=(5, 3, 5)), max_epochs=1)
