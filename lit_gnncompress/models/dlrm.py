"""Train a deep learning recommendation model to predict clicks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any, Literal

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

from lit_gnncompress.data import TableBatch
from lit_gnncompress.embedding.joined_lookup import JoinedLookup
from lit_gnncompress.embedding.restored import restore_tables
from lit_gnncompress.models.dot_interaction import DotInteraction


@dataclass(frozen=True)
class DLRMSizes:
    """Widths of a published model.

    Attributes:
        embedding_dim: Width of the vectors of categories.
        bottom_mlp: Widths of the hidden layers for numbers; a layer of ``embedding_dim`` follows.
        top_mlp: Widths of the hidden layers after the dot products; the score follows.
    """

    embedding_dim: int
    bottom_mlp: tuple[int, ...]
    top_mlp: tuple[int, ...]


DLRM_SIZES = {
    "kaggle": DLRMSizes(16, (512, 256, 64), (512, 256)),
    "terabyte": DLRMSizes(64, (512, 256), (512, 512, 256)),
    "mlperf": DLRMSizes(128, (512, 256), (1024, 1024, 512, 256)),
}
"""Of ``facebookresearch/dlrm`` for Kaggle and Terabyte, and of MLPerf's training benchmark."""


class DLRM(L.LightningModule):
    """Predicts clicks from numbers and categories: `DLRM <https://arxiv.org/abs/1906.00091>`_.

    A bottom MLP makes a vector of the numbers, ``embeddings``, a table for each field, make one of
    each category; the dot products of all pairs and the vector of the numbers go through a top MLP,
    whose output is the log odds of a click. Where rows have no numbers (``num_dense=0``) there is
    no bottom MLP, and the sum of the vectors of categories takes the place of its output.

    Batches are those of :class:`~lit_gnncompress.data.CriteoDataModule` and
    :class:`~lit_gnncompress.data.LibFMDataModule`. Any module that takes int64 of shape ``(B,)``
    and returns ``(B, embedding_dim)``, such as :class:`~lit_gnncompress.embedding.TTEmbedding`, can
    stand in place of one of the ``embeddings``; also one like ``nn.EmbeddingBag``, which is given
    bags of one.

    Logs once an epoch ``train_loss`` (binary cross entropy), and ``val_loss``, ``val_auroc``,
    ``val_acc``, ``test_loss``, ``test_auroc`` and ``test_acc``.

    Args:
        num_embeddings: Rows of the table of each field.
        num_dense: Numbers in a row.
        sizes: Published widths, for what the next three do not tell; see ``DLRM_SIZES``.
        embedding_dim: Width of the vectors.
        bottom_mlp: Widths of hidden layers, a layer of ``embedding_dim`` follows.
        top_mlp: Widths of hidden layers, the score follows.
        optimizer: ``"sgd"``, ``"adagrad"`` or ``"adam"``.
        lr: Learning rate.
        sparse: Whether gradients of tables hold the rows of a batch alone, for tables with many
            rows. Adam has no such form.
        thresholds: Computes the AUROC at so many thresholds; ``None`` computes it exactly, from all
            scores of an epoch, in 12 bytes for each row.
        defer_tables: Whether tables are made in ``setup``, after callbacks have been there, and are
            on the device ``"meta"`` before: those that
            :class:`~lit_gnncompress.callbacks.Tensorize` replaces then never take memory. A state
            that is loaded before makes them, full tables or tensor trains as it has them.

    Checkpoints of a fit with ``Tensorize`` load with and without it. Tables that have become tensor
    trains of equal columns and ranks are looked up together, in one call of a kernel, unless their
    cores are so large that a CPU is quicker without.

    Raises:
        TypeError: If ``num_embeddings`` is no sequence, or a size no whole number.
        ValueError: If a size is below 1, there is no field, ``sizes`` or ``optimizer`` is unknown,
            or ``sparse`` and Adam come together.

    Example:
        >>> DLRM([1000, 50], num_dense=13, sizes="mlperf").embeddings[0]
        Embedding(1000, 128)
    """

    def __init__(
        self,
        num_embeddings: Sequence[int],
        num_dense: int = 13,
        sizes: Literal["kaggle", "terabyte", "mlperf"] = "kaggle",
        embedding_dim: int | None = None,
        bottom_mlp: Sequence[int] | None = None,
        top_mlp: Sequence[int] | None = None,
        optimizer: Literal["sgd", "adagrad", "adam"] = "adagrad",
        lr: float = 0.01,
        sparse: bool = False,
        thresholds: int | None = None,
        defer_tables: bool = False,
    ) -> None:
        super().__init__()
        if sizes not in DLRM_SIZES:
            raise ValueError(f"sizes={sizes!r} is unknown: choose one of {', '.join(DLRM_SIZES)}")
        published = DLRM_SIZES[sizes]
        dim = published.embedding_dim if embedding_dim is None else embedding_dim
        bottom = published.bottom_mlp if bottom_mlp is None else bottom_mlp
        top = published.top_mlp if top_mlp is None else top_mlp
        _check(num_embeddings, num_dense, dim, bottom, top)
        if optimizer not in _OPTIMIZERS:
            known = ", ".join(_OPTIMIZERS)
            raise ValueError(f"optimizer={optimizer!r} is unknown: choose one of {known}")
        if sparse and optimizer == "adam":
            raise ValueError(
                "sparse=True and optimizer='adam': Adam moves every row in every step. Choose "
                "optimizer='adagrad' or 'sgd', or sparse=False"
            )
        self.save_hyperparameters()
        self.num_dense, self.embedding_dim = num_dense, dim
        self.optimizer_name, self.lr = optimizer, lr
        device = "meta" if defer_tables else None
        self.embeddings = nn.ModuleList(
            _table(rows, dim, sparse, device) for rows in num_embeddings
        )
        self._look_up, self._deferred = JoinedLookup(), defer_tables
        self.bottom = _mlp([num_dense, *bottom, dim], last=nn.ReLU()) if num_dense else None
        self.interaction = DotInteraction(len(num_embeddings) + (num_dense > 0))
        self.top = _mlp([dim + self.interaction.num_products, *top, 1], last=None)
        self.val_auroc, self.val_acc = BinaryAUROC(thresholds=thresholds), BinaryAccuracy()
        self.test_auroc, self.test_acc = BinaryAUROC(thresholds=thresholds), BinaryAccuracy()

    def setup(self, stage: str) -> None:
        """Make the tables that were deferred and are still wanted."""
        for table in self._deferred_tables():
            table.to_empty(device=self.device)
            _fill(table)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DLRM:
        # A Trainer moves the module to the CPU in the end, and before it reports what went wrong in
        # setup: deferred tables have no entries to move.
        def moved(tensor: Tensor) -> Tensor:
            try:
                return fn(tensor)
            except NotImplementedError:
                if not (self._deferred and tensor.is_meta):
                    raise
                return tensor

        return super()._apply(moved, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make room for the tensor trains that the checkpoint has."""
        restore_tables(self, checkpoint["state_dict"])

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        """Score rows.

        Args:
            dense: Numbers, float of shape ``(B, num_dense)``.
            sparse: The category of each field, int64 of shape ``(B, F)``.

        Returns:
            Log odds of a click, ``(B,)``.

        Raises:
            ValueError: If there are more or fewer numbers or fields, or tables are not made yet.
            IndexError: If a category has no row in its table; on the CPU with its name.
        """
        self._check_rows(dense, sparse)
        vectors = self._look_up(list(self.embeddings), sparse)
        if self.bottom is not None:
            vectors.insert(0, self.bottom(dense))
        stacked = torch.stack(vectors, dim=1)
        first = stacked.sum(dim=1) if self.bottom is None else vectors[0]
        return self.top(torch.cat([first, self.interaction(stacked)], dim=1)).squeeze(1)

    def training_step(self, batch: TableBatch, batch_idx: int) -> Tensor:
        """Return the mean binary cross entropy."""
        loss = F.binary_cross_entropy_with_logits(self(batch.dense, batch.sparse), batch.label)
        size = len(batch.label)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=size, prog_bar=True)
        return loss

    def validation_step(self, batch: TableBatch, batch_idx: int) -> None:
        """Log loss, AUROC and accuracy of rows that validate."""
        self._evaluate(batch, "val", prog_bar=True)

    def test_step(self, batch: TableBatch, batch_idx: int) -> None:
        """Log loss, AUROC and accuracy of rows that test."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: TableBatch, batch_idx: int) -> Tensor:
        """Return the probability of a click, ``(B,)``."""
        return self(batch.dense, batch.sparse).sigmoid()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer that was chosen, without weight decay."""
        return _OPTIMIZERS[self.optimizer_name](self.parameters(), lr=self.lr)

    def _evaluate(self, batch: TableBatch, stage: str, prog_bar: bool = False) -> None:
        logits = self(batch.dense, batch.sparse)
        size = len(batch.label)
        loss = F.binary_cross_entropy_with_logits(logits, batch.label)
        self.log(f"{stage}_loss", loss, batch_size=size, sync_dist=True)
        for name in (f"{stage}_auroc", f"{stage}_acc"):
            metric = getattr(self, name)
            metric.update(logits.sigmoid(), batch.label.int())
            self.log(name, metric, batch_size=size, prog_bar=prog_bar)

    def _deferred_tables(self) -> list[nn.Embedding]:
        """Those that nothing has replaced, and no state has been read into."""
        if not self._deferred:
            return []
        tables = [table for table in self.embeddings if isinstance(table, nn.Embedding)]
        deferred = [table for table in tables if table.weight.is_meta]
        self._deferred = bool(deferred)
        return deferred

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Any, *args: Any
    ) -> None:
        if self._deferred:  # what is read into them would be lost
            start = len(prefix)
            own = {key[start:]: state_dict[key] for key in state_dict if key.startswith(prefix)}
            restore_tables(self, own)
            deferred = {id(table) for table in self._deferred_tables()}
            for name, table in self.embeddings.named_children():
                weight = own.get(f"embeddings.{name}.weight")
                fits = weight is not None and weight.shape == table.weight.shape
                if id(table) in deferred and fits and not local_metadata.get(_ASSIGN):
                    table.to_empty(device=self.device)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)  # type: ignore[no-untyped-call]

    def _check_rows(self, dense: Tensor, sparse: Tensor) -> None:
        if self._deferred_tables():
            raise ValueError(
                "defer_tables=True: the tables are not made yet. A Trainer makes them; without "
                "one, load a state, or call setup('predict')"
            )
        for name, rows, width in (
            ("dense", dense, self.num_dense),
            ("sparse", sparse, len(self.embeddings)),
        ):
            if rows.dim() != 2 or rows.size(1) != width:
                raise ValueError(
                    f"{name} has shape {tuple(rows.shape)}, but this model was made for (B, "
                    f"{width}): give it num_dense and num_embeddings of the data"
                )
        # Compiled, and on other devices, one would have to wait for the values.
        if sparse.is_cpu and len(sparse) and not torch.compiler.is_compiling():
            low, high = sparse.amin(0).tolist(), sparse.amax(0).tolist()
            for field, table in enumerate(self.embeddings):
                rows = getattr(table, "num_embeddings", high[field] + 1)
                if low[field] < 0 or high[field] >= rows:
                    wrong = low[field] if low[field] < 0 else high[field]
                    raise IndexError(
                        f"field {field} has category {wrong}, but embeddings.{field} has rows 0 to "
                        f"{rows - 1}: give the model num_embeddings of the data"
                    )


_ASSIGN = (
    "assign_to_params_buffers"  # of load_state_dict: tensors of the state take the place of mine
)

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
}


def _table(
    num_embeddings: int, embedding_dim: int, sparse: bool, device: str | None
) -> nn.Embedding:
    table = nn.Embedding(num_embeddings, embedding_dim, sparse=sparse, device=device)
    table.init_std = (3 * num_embeddings) ** -0.5  # of the entries below, for who replaces it
    _fill(table)
    return table


def _fill(table: nn.Embedding) -> None:
    """Draw the entries as the authors' code does; none where there is no memory."""
    if not table.weight.is_meta:
        bound = table.num_embeddings**-0.5
        nn.init.uniform_(table.weight, -bound, bound)


def _mlp(widths: Sequence[int], last: nn.Module | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = nn.Linear(before, after)
        nn.init.normal_(linear.weight, std=(2 / (before + after)) ** 0.5)
        nn.init.normal_(linear.bias, std=after**-0.5)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1], *([] if last is None else [last]))


def _check(
    num_embeddings: Sequence[int],
    num_dense: int,
    embedding_dim: int,
    bottom_mlp: Sequence[int],
    top_mlp: Sequence[int],
) -> None:
    if not isinstance(num_embeddings, Collection):
        raise TypeError(
            f"num_embeddings={num_embeddings!r} must be a sequence, the rows of the table of each "
            f"field, such as those of a data module, data.num_embeddings"
        )
    if len(num_embeddings) == 0:
        raise ValueError("num_embeddings is empty: give the rows of the table of each field")
    for name, sizes in (
        ("num_embeddings", num_embeddings),
        ("embedding_dim", [embedding_dim]),
        ("bottom_mlp", bottom_mlp),
        ("top_mlp", top_mlp),
    ):
        if any(isinstance(size, bool) or not isinstance(size, Integral) for size in sizes):
            raise TypeError(f"{name}={sizes}: each must be a whole number")
        if any(size < 1 for size in sizes):
            raise ValueError(f"{name}={sizes}: each must be at least 1")
    if num_dense < 0:
        raise ValueError(f"num_dense={num_dense} must be at least 0")
