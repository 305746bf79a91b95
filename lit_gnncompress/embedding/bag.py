"""Sums, means and maxima of bags of rows, from tables in tensor-train form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gnncompress.embedding.cores import Init
from lit_gnncompress.embedding.row_table import check_indices
from lit_gnncompress.embedding.train_table import TrainTable
from lit_gnncompress.kernels import tt_embedding_bag
from lit_gnncompress.kernels.tt_embedding_bag import check_offsets

if TYPE_CHECKING:
    from lit_gnncompress.embedding.node_order import NodeOrder

Mode = Literal["sum", "mean", "max"]


class TTEmbeddingBag(TrainTable):
    r"""A table as a tensor train, of which bags of rows are summed, averaged or maximised.

    It stands where ``nn.EmbeddingBag`` stood, with its arguments (Yin et al., "TT-Rec: Tensor train
    compression for deep learning recommendation models", MLSys 2021). Sums and means are taken
    where rows are made: nothing holds the rows themselves, and backward keeps the indices and their
    order. The maximum needs all rows of a batch at once.

    Gradients of cores are dense, and small: any optimizer will do.

    Args:
        num_embeddings: Number of rows, ``N``.
        embedding_dim: Number of columns, ``D``.
        max_norm: Refused if given: rows share their cores and cannot be scaled one by one.
        norm_type: Of ``max_norm``.
        scale_grad_by_freq: Refused if true, for the same reason.
        mode: What becomes of a bag: ``"sum"``, ``"mean"`` or ``"max"``.
        sparse: Refused if true: the gradient of every core is dense.
        include_last_offset: Whether ``offsets`` end with the number of indices.
        padding_idx: A row that bags leave out, also of the number that means divide by; negative
            ones count from the end.
        rank: See :class:`~lit_gnncompress.embedding.tensor_train.TTEmbedding`, and so all others.
        rows: See ``rank``.
        columns: See ``rank``.
        order: See ``rank``.
        init: See ``rank``.
        compression: See ``rank``.
        max_bytes: See ``rank``.
        parts: See ``rank``.
        std: See ``rank``.
        learn_scale: See ``rank``.
        device: See ``rank``.
        dtype: See ``rank``.

    Attributes:
        mode: As given.
        include_last_offset: As given.
        shape: Factors and ranks; and all other attributes of ``TTEmbedding``.

    Raises:
        ValueError: What ``TTEmbedding`` refuses, an unknown ``mode``, or what is refused above.

    Example:
        >>> table = TTEmbeddingBag(10_000_000, 64, mode="sum", rank=32)
        >>> table(torch.tensor([7, 9_999_999, 7]), torch.tensor([0, 1])).shape
        torch.Size([2, 64])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: Mode = "mean",
        sparse: bool = False,
        *,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        rank: int | Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
        order: NodeOrder | None = None,
        init: Init = "semi_orthogonal",
        compression: float | None = None,
        max_bytes: int | None = None,
        parts: bool | Sequence[int] = False,
        std: float = 1.0,
        learn_scale: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode={mode!r} is none of {', '.join(get_args(Mode))}.")
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            rank=rank,
            rows=rows,
            columns=columns,
            order=order,
            init=init,
            compression=compression,
            max_bytes=max_bytes,
            parts=parts,
            std=std,
            learn_scale=learn_scale,
            device=device,
            dtype=dtype,
        )
        self.mode, self.include_last_offset = mode, include_last_offset

    def requires_grad_(self, requires_grad: bool = True) -> TTEmbeddingBag:
        """Freezes or thaws the table, before it is put into a collection.

        Raises:
            ValueError: The cores lie in a collection, which are trained together.
        """
        if not isinstance(self.cores, nn.ParameterList):
            raise ValueError(
                f"requires_grad_({requires_grad}): the cores lie with those of other tables of a "
                f"TTEmbeddingBagCollection. Freeze a table before it is put there, or ask the "
                f"collection for all."
            )
        return super().requires_grad_(requires_grad)

    def forward(  # type: ignore[override]
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Reduces bags of rows.

        Args:
            input: Rows, int64 or int32: of shape ``(B, L)`` for ``B`` bags of ``L``, or of shape
                ``(n,)`` for bags that ``offsets`` tell.
            offsets: Where in a one-dimensional ``input`` each bag begins, int64 or int32, from 0,
                never falling; followed by ``n`` if ``include_last_offset``. Two that are equal make
                an empty bag.
            per_sample_weights: What each row is multiplied by, shape of ``input``, dtype of the
                parameters; with ``mode="sum"`` alone.

        Returns:
            Shape ``(B, D)``, dtype of the parameters; zeros for bags without rows.

        Raises:
            TypeError: ``input`` is no tensor.
            ValueError: Indices, offsets or weights of another shape or dtype; offsets that do not
                begin with 0, fall or go beyond ``n`` (on a GPU, an assertion of the device).
            IndexError: An index that is no row; see ``TTEmbedding``.
        """
        check_indices(input, self.num_embeddings, "input")
        check_weights(per_sample_weights, input, self.mode, self.cores[0].dtype)
        ones = input.dim() == 2 and input.size(1) == 1
        if ones and offsets is None and per_sample_weights is None:
            return super().forward(input.squeeze(1))
        bags = Bags.of(input, offsets, per_sample_weights, self.include_last_offset)
        places = bags.indices if self.row_order is None else self.row_order(bags.indices)
        if self.mode == "max":
            return self._largest(places, bags)
        bags = bags.without(self.padding_idx, self.cores[0].dtype)
        out = tt_embedding_bag(places, bags.first, self.scaled_cores(), bags.weights)
        if self.parts is not None:
            out = out + self.parts.pooled(places, bags.first, bags.weights)
        return out if self.mode == "sum" else out / bags.sizes(self.padding_idx, out.dtype)

    def _largest(self, places: Tensor, bags: Bags) -> Tensor:
        check_offsets(bags.first, places)
        # Which row has the maximum is known only when all are there.
        rows, count = self._rows_at(places), places.numel()
        if count == 0:
            return rows.sum(0).repeat(bags.first.numel() - 1, 1)
        row = torch.arange(count, device=rows.device)
        left_out = None
        if self.padding_idx is not None:
            left_out = count
            rows = torch.cat([rows, rows.new_zeros(1, self.embedding_dim)])
            row = row.masked_fill(bags.indices == self.padding_idx, left_out)
        return F.embedding_bag(
            row, rows, bags.first, mode="max", include_last_offset=True, padding_idx=left_out
        )

    def extra_repr(self) -> str:
        """Arguments, and how much smaller the table is."""
        last = ", include_last_offset=True" if self.include_last_offset else ""
        return f"{super().extra_repr()}, mode={self.mode!r}{last}"


class Bags(NamedTuple):
    """Bags of indices, one after the other.

    Attributes:
        indices: Shape ``(n,)``.
        first: First index of each bag and, last, ``n``; int64, shape ``(B + 1,)``.
        weights: Of each index, shape ``(n,)``; 1 if ``None``.
    """

    indices: Tensor
    first: Tensor
    weights: Tensor | None

    @classmethod
    def of(
        cls,
        input: Tensor,
        offsets: Tensor | None,
        weights: Tensor | None,
        include_last_offset: bool,
    ) -> Bags:
        """Those that ``nn.EmbeddingBag`` would see in its arguments.

        Raises:
            ValueError: Shapes that do not fit each other, or offsets beyond the indices.
        """
        weights = None if weights is None else weights.flatten()
        if input.dim() == 2:
            if offsets is not None:
                raise ValueError(
                    f"offsets are for a one-dimensional input: each row of input, of shape "
                    f"{tuple(input.shape)}, is a bag. Leave them out, or flatten input."
                )
            bags, size = input.shape
            first = torch.arange(bags + 1, device=input.device) * size
            return cls(input.flatten(), first, weights)
        if input.dim() != 1:
            raise ValueError(
                f"input must have one dimension, or two with a bag in each row, got shape "
                f"{tuple(input.shape)}."
            )
        if offsets is None or offsets.dim() != 1 or offsets.dtype not in _INTEGERS:
            found = "none" if offsets is None else f"{offsets.dtype} of {tuple(offsets.shape)}"
            raise ValueError(
                f"A one-dimensional input needs offsets, int64 or int32 of shape (B,), got {found}."
            )
        first = offsets.long()
        if not include_last_offset:
            count = input.numel()
            if not (offsets.is_cuda or offsets.is_meta or torch.compiler.is_compiling()):
                _check_last(offsets, count)
            first = F.pad(first, (0, 1), value=count)
        return cls(input, first, weights)

    def without(self, padding_idx: int | None, dtype: torch.dtype) -> Bags:
        """The same bags, to which one row adds nothing."""
        if padding_idx is None:
            return self
        counts = (self.indices != padding_idx).to(dtype)
        return self._replace(weights=counts if self.weights is None else counts * self.weights)

    def sizes(self, padding_idx: int | None, dtype: torch.dtype) -> Tensor:
        """How many rows bags have, at least 1, shape ``(B, 1)``."""
        first = self.first
        if padding_idx is not None:
            counted = (self.indices != padding_idx).cumsum(0)
            first = F.pad(counted, (1, 0))[first]
        return first.diff().clamp(min=1).unsqueeze(1).to(dtype)


_INTEGERS = (torch.int64, torch.int32)


def check_weights(weights: Tensor | None, input: Tensor, mode: str, dtype: torch.dtype) -> None:
    """Refuses weights that do not fit the indices, the table or the mode.

    Raises:
        ValueError: Naming what they should be.
    """
    if weights is None:
        return
    if mode != "sum":
        raise ValueError(f"per_sample_weights are for mode='sum', this is mode={mode!r}.")
    if weights.shape != input.shape:
        raise ValueError(
            f"per_sample_weights have shape {tuple(weights.shape)}, input has "
            f"{tuple(input.shape)}: give each index one."
        )
    if weights.dtype != dtype:
        raise ValueError(
            f"per_sample_weights are {weights.dtype}, the table is {dtype}: convert one of them."
        )


def _check_last(offsets: Tensor, count: int) -> None:
    if offsets.numel() == 0:
        if count:
            raise ValueError(f"offsets are empty: there is no bag for the {count} indices.")
    elif (last := int(offsets[-1])) > count:
        raise ValueError(
            f"offsets[{offsets.numel() - 1}]={last} is above the number of indices, {count}."
        )
