"""Plans measured without fine-tuning, on several trained checkpoints together."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Literal

import lightning as L
import torch
from torch import Tensor

from benchmarks.recipes import build, recipe
from lit_gnncompress import BitPlan, ledger_of, quantize_
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.plan import FULL_PRECISION
from lit_gnncompress.quantization.quantize import Quantization
from lit_gnncompress.search import SiteSize
from lit_gnncompress.storage.site_sizes import site_sizes

SPLITS = (4, 8, 16)  # SGQuant's four degree buckets
_ONE_SIDED_95 = 1.645  # standard errors
Split = Literal["val", "test"]


class PairedCheckpoints:
    """A model of one data set, trained in full precision with several seeds.

    Each plan is measured on all of them, with the ranges of the recipe: one setting for whatever
    is compared. The weights are those of the last epoch: the epoch of the best validation accuracy
    owes part of it to luck, which any rounding loses, so that all plans would seem to harm.

    Args:
        dataset: Name of the data set.
        model: Name of the model.
        data: The data set.
        seeds: Seeds of the trainings.
        on_fit: Called after each.
    """

    def __init__(
        self,
        dataset: str,
        model: str,
        data: GraphDataModule,
        seeds: Sequence[int],
        on_fit: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = recipe(dataset, model)[1]
        self._graph = data.data
        self._weights: list[dict[str, Tensor]] = []
        self._full: dict[Split, Tensor] = {}
        for seed in seeds:
            L.seed_everything(seed, verbose=False)
            last = _LastWeights()
            trainer, self._module, _ = build(dataset, model, data, epochs=1, callbacks=[last])
            trainer.fit(self._module, datamodule=data)
            trainer.callbacks[0].remove()  # type: ignore[attr-defined]
            self._weights.append(last.weights)
            on_fit()
        self._module.eval()

    def validation(self, plan: BitPlan) -> float:
        """Validation accuracy under ``plan``, between 0 and 1, that it has with 95 % confidence.

        It is that of full precision plus the lower bound of the difference, over the nodes that
        all checkpoints are validated on: a few hundred of them cannot tell a plan that does no
        harm from one that these very nodes like, and a search tries many.
        """
        full = self._full_precision("val")
        gain = (self._right(plan, "val") - full).mean(dim=0)
        margin = _ONE_SIDED_95 * gain.std() / math.sqrt(len(gain))
        return float(full.mean() + gain.mean() - margin)

    def test_delta(self, plan: BitPlan) -> list[float]:
        """Test accuracy under ``plan`` minus that in full precision, by checkpoint, in points."""
        gain = self._right(plan, "test") - self._full_precision("test")
        return (100 * gain.mean(dim=1)).tolist()

    def test_error(self, plan: BitPlan) -> float:
        """Share of test nodes that are classified wrongly, in percent; the mean."""
        return 100 * (1 - float(self._right(plan, "test").mean()))

    def sizes(self) -> list[SiteSize]:
        """Sizes of the sites, in SGQuant's degree buckets."""
        attention = any(s.site.component == "attention" for s in self._sites())
        quantization = self._quantized(BitPlan(8, 8 if attention else FULL_PRECISION, SPLITS))
        self._classes(self._weights[0])
        ledger = ledger_of(quantization)
        quantization.remove()
        # The bytes of codes alone: the count of the paper.
        found = site_sizes({8: ledger}, len(SPLITS) + 1)
        return [SiteSize(size.site, size.elements) for size in found]

    def _sites(self) -> list:
        quantization = self._quantized(BitPlan())
        sites = quantization.sites
        quantization.remove()
        return sites

    def _full_precision(self, split: Split) -> Tensor:
        """What :meth:`_right` says without a plan, worked out once: every plan is held to it."""
        if split not in self._full:
            self._full[split] = self._right(BitPlan(), split)
        return self._full[split]

    def _right(self, plan: BitPlan, split: Split) -> Tensor:
        """Whether nodes are classified rightly, 0 or 1: shape ``(checkpoints, nodes)``."""
        quantization = self._quantized(plan)
        try:
            classes = torch.stack([self._classes(weights) for weights in self._weights])
        finally:
            quantization.remove()
        right = classes == self._graph.y
        return right[:, self._graph[f"{split}_mask"]].double()

    @torch.no_grad()
    def _classes(self, weights: dict[str, Tensor]) -> Tensor:
        self._module.load_state_dict(weights)
        logits: Tensor = self._module(self._graph.x, self._graph.edge_index)
        return logits.argmax(dim=1)

    def _quantized(self, plan: BitPlan) -> Quantization:
        quantization = quantize_(self._module, plan, **self._settings)
        quantization.publish(self._graph.num_nodes, self._graph.deg)
        return quantization


class _LastWeights(L.Callback):
    """Keeps the weights of the last epoch in full precision."""

    weights: dict[str, Tensor]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        finetuning = trainer.callbacks[1]  # type: ignore[attr-defined]
        if not finetuning.quantized:
            self.weights = copy.deepcopy(pl_module.state_dict())


def saving_of(plan: BitPlan, sizes: Sequence[SiteSize]) -> float:
    """Saving of any plan by the paper's count: fp32 over the codes of features."""
    table = plan.resolve([size.site for size in sizes])
    full = spent = 0.0
    for size in sizes:
        if size.site.component != "features":
            continue
        bits = table[size.site]
        for bucket, elements in enumerate(size.elements):
            full += FULL_PRECISION * elements
            spent += elements * bits[bucket if len(bits) > 1 else 0]
    return full / spent


def bits_of(plan: BitPlan) -> tuple[int, ...]:
    """{1, 2, 4, 8}, and what else a plan by hand spends, so that it is in the space."""
    spent = {1, 2, 4, 8}
    for spec in (plan.features, plan.attention):
        for bits in spec.values() if isinstance(spec, dict) else [spec]:
            spent |= {bits} if isinstance(bits, int) else set(bits)
    return tuple(sorted(spent - {FULL_PRECISION}))
