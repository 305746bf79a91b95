"""A DLRM of published size, its largest tables dense or as tensor trains, and its steps."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.criteo_rows import KAGGLE_ROWS
from benchmarks.process_peak import ProcessPeak, memory_of
from benchmarks.tt_lookup import draw
from lit_gnncompress.callbacks import Tensorize
from lit_gnncompress.embedding import TTEmbedding
from lit_gnncompress.embedding.joined_lookup import JoinedLookup
from lit_gnncompress.models import DLRM


@dataclass(frozen=True)
class Preset:
    """Tables of a published DLRM.

    Attributes:
        num_embeddings: Rows of its tables.
        sizes: Name of its widths in ``DLRM``.
        columns: Factors of the width of the tables.
    """

    num_embeddings: tuple[int, ...]
    sizes: str
    columns: tuple[int, ...]

    @property
    def embedding_dim(self) -> int:
        """Width of the tables."""
        return math.prod(self.columns)

    def largest(self, count: int) -> list[int]:
        """The tables with the most rows."""
        return sorted(range(len(self.num_embeddings)), key=lambda k: -self.num_embeddings[k])[
            :count
        ]


# Rows as facebookresearch/dlrm's preprocessing of Criteo's files counts them: those of the Kaggle
# challenge, and those of all 24 days with --max-ind-range=10000000, as MLPerf's benchmark for
# inference and TT-Rec (arXiv 2101.11714) take them.
PRESETS = {
    "kaggle": Preset(
        KAGGLE_ROWS,
        "kaggle",
        (4, 2, 2),
    ),
    "terabyte": Preset(
        (
            9_980_333, 36_084, 17_217, 7_378, 20_134, 3, 7_112, 1_442, 61, 9_758_201, 1_333_352,
            313_829, 10, 2_208, 11_156, 122, 4, 970, 14, 9_994_222, 7_267_859, 9_946_608, 415_421,
            12_420, 101, 36,
        ),
        "terabyte",
        (8, 2, 4),
    ),
}  # fmt: skip
NUM_DENSE = 13
_LR = 0.01
_BYTES_OF_A_NUMBER = {"adagrad": 8, "sgd": 4}  # with the state of the optimizer
_PEAK_STEPS = 20


@dataclass(frozen=True)
class Model:
    """A model to train.

    Attributes:
        preset: Which tables it has.
        optimizer: ``"adagrad"`` or ``"sgd"``.
        fraction: Share of the rows that tables have as long as they are dense. Tensor trains have
            the full number.
        tables_tt: How many tables, the largest, are tensor trains.
        rank: Their rank; 0 where there are none.
        batch: Rows of a step.
    """

    preset: str
    optimizer: str
    fraction: float
    tables_tt: int
    rank: int
    batch: int

    @property
    def num_embeddings(self) -> list[int]:
        """Rows of each table."""
        preset = PRESETS[self.preset]
        trains = preset.largest(self.tables_tt)
        return [
            rows if k in trains else max(1, int(self.fraction * rows))
            for k, rows in enumerate(preset.num_embeddings)
        ]

    def build(self) -> DLRM:
        """The model, the same every time; dense tables have sparse gradients."""
        torch.manual_seed(0)
        model = self._without_tables()
        model.setup("fit")
        return model

    def _without_tables(self) -> DLRM:
        """The model before its dense tables are made, which the largest never are."""
        preset = PRESETS[self.preset]
        sizes: Any = preset.sizes
        model = DLRM(self.num_embeddings, NUM_DENSE, sizes, sparse=True, defer_tables=True)
        if self.tables_tt:
            trains = [f"embeddings.{k}" for k in preset.largest(self.tables_tt)]
            Tensorize(
                trains, self.rank, rows="smallest", columns=preset.columns, verbose=False
            ).replace(model)
        return model

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers, categories by Zipf's law, and clicks: a batch, the same every time."""
        generator = torch.Generator().manual_seed(0)
        columns = [draw("zipf", n, self.batch, generator) for n in self.num_embeddings]
        dense = torch.rand(self.batch, NUM_DENSE, generator=generator)
        clicks = torch.randint(0, 2, (self.batch,), generator=generator).float()
        return dense, torch.stack(columns, 1), clicks

    def step(self, batch: tuple[Tensor, Tensor, Tensor]) -> Callable[[], None]:
        """What trains the model for a step, on the same batch each time.

        All but the tables is trained by torch's fused optimizers, which take no sparse gradients.
        """
        model, (dense, categories, clicks) = self.build(), batch
        tables = [t.weight for t in model.embeddings if isinstance(t, nn.Embedding)]
        others = {id(table) for table in tables}
        rest = [p for p in model.parameters() if id(p) not in others]
        kind: Any = {"adagrad": torch.optim.Adagrad, "sgd": torch.optim.SGD}[self.optimizer]
        optimizers = [kind(tables, lr=_LR), kind(rest, lr=_LR, fused=True)]

        def train() -> None:
            for optimizer in optimizers:
                optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(dense, categories), clicks).backward()
            for optimizer in optimizers:
                optimizer.step()

        return train

    def peak_bytes(self) -> int:
        """Most memory that a process takes to train the model, beyond what it had before."""
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_peak_bytes, (self, torch.get_num_threads()))


def fraction_within(preset: str, optimizer: str, gigabytes: float) -> float:
    """Share of the rows with which dense tables and their optimizer fit, in whole percents.

    Raises:
        ValueError: Less than a percent fits.
    """
    tables = PRESETS[preset]
    numbers = sum(tables.num_embeddings) * tables.embedding_dim
    needed = numbers * _BYTES_OF_A_NUMBER[optimizer] / 1e9
    fraction = min(1.0, int(100 * gigabytes / needed) / 100)
    if fraction == 0:
        raise ValueError(
            f"--memory {gigabytes} GB: the dense tables of {preset} take {needed:.1f} GB with "
            f"{optimizer}; allow a hundredth of it at least."
        )
    return fraction


def num_parameters(model: Model) -> int:
    """Numbers that a model trains, of the full number of rows."""
    full = replace(model, fraction=1.0)._without_tables()
    return sum(parameter.numel() for parameter in full.parameters())


def _peak_bytes(model: Model, threads: int) -> int:
    torch.set_num_threads(threads)
    batch = model.draw()
    if model.tables_tt:
        _compile(PRESETS[model.preset], model.rank)
    before = memory_of(os.getpid())
    with ProcessPeak(os.getpid()) as peak:
        step = model.step(batch)
        for _ in range(_PEAK_STEPS):
            step()
    return peak.bytes - before


def _compile(preset: Preset, rank: int) -> None:
    """Has the code of kernels made, which is no part of a model."""
    width = preset.embedding_dim
    tables = [TTEmbedding(999, width, rank=rank, columns=preset.columns) for _ in range(2)]
    torch.stack(JoinedLookup()(tables, torch.zeros(1, 2, dtype=torch.long))).sum().backward()
