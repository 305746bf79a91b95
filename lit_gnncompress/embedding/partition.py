"""Part vectors: one trainable vector for each part of a graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gnncompress.embedding.cores import check_init
from lit_gnncompress.embedding.row_order import RowOrder
from lit_gnncompress.embedding.row_table import RowTable
from lit_gnncompress.embedding.saved_numbers import SavedNumbers

if TYPE_CHECKING:
    from lit_gnncompress.embedding.node_order import NodeOrder

_ROWS = SavedNumbers("rows", torch.int64, lambda rows: f"an order with the factors {rows}")


class PartVectors(nn.Module):
    """A vector for each part and level, by the place of a row.

    Args:
        rows: Factors of the places, ``p_1 … p_d``.
        levels: Levels from 1 to ``d - 1``; level ``l`` has ``p_1 * … * p_l`` parts.
            All if ``None``.
        embedding_dim: Width of a vector, ``D``.
        std: Root mean square of the sums over the levels.
        device: Of the parameters.
        dtype: Of the parameters.

    Attributes:
        tables: The vectors of each level, shape ``(num_parts, D)``.

    Raises:
        ValueError: No levels, levels that the factors do not have, or the same twice.
    """

    def __init__(
        self,
        rows: Sequence[int],
        levels: Sequence[int] | None,
        embedding_dim: int,
        std: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.levels = _checked_levels(levels, len(rows))
        self.std = std
        self.spans = tuple(math.prod(rows[level:]) for level in self.levels)
        self.tables = nn.ParameterList(
            nn.Parameter(
                torch.empty(math.prod(rows[:level]), embedding_dim, device=device, dtype=dtype)
            )
            for level in self.levels
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the vectors anew from torch's generator."""
        for table in self.tables:
            nn.init.normal_(table, std=self.std / math.sqrt(len(self.levels)))

    def forward(self, places: Tensor) -> Tensor:
        """Sums over the levels, shape ``(*places.shape, D)``."""
        parts = zip(self._parts(places), self.tables, strict=True)
        vectors = [F.embedding(part, table) for part, table in parts]
        return sum(vectors[1:], vectors[0])

    def pooled(self, places: Tensor, first: Tensor, weights: Tensor | None) -> Tensor:
        """The same, summed over bags of places.

        Args:
            places: Shape ``(n,)``.
            first: First place of each bag and, last, ``n``; int64, shape ``(B + 1,)``.
            weights: Of each place; 1 if ``None``.

        Returns:
            Shape ``(B, D)``.
        """
        sums = [
            F.embedding_bag(
                part.long(), table, first, mode="sum", per_sample_weights=weights,
                include_last_offset=True,
            )
            for part, table in zip(self._parts(places), self.tables, strict=True)
        ]  # fmt: skip
        return sum(sums[1:], sums[0])

    def _parts(self, places: Tensor) -> list[Tensor]:
        return [torch.div(places, span, rounding_mode="floor") for span in self.spans]

    @torch.no_grad()
    def fit_(self, weight: Tensor, places: Tensor) -> Tensor:
        """Sets the vectors to means of rows, level after level, and returns what is left of them.

        Args:
            weight: Rows, shape ``(N, D)``.
            places: Their places, shape ``(N,)``.

        Returns:
            What the vectors leave of the rows, shape ``(N, D)``.
        """
        left = weight
        coarsest_first = sorted(range(len(self.levels)), key=lambda k: self.levels[k])
        for k in coarsest_first:
            table, span = self.tables[k], self.spans[k]
            part = places.long() // span
            sums = torch.zeros_like(table).index_add_(0, part, left.to(table.dtype))
            counts = torch.bincount(part, minlength=len(table)).clamp(min=1).unsqueeze(1)
            table.copy_(sums / counts)
            left = left - table[part].to(left.dtype)
        return left


class PartitionEmbedding(RowTable):
    """One trainable vector for each part of a node order and each level, summed.

    The position embedding of Kalantzi and Karypis ("Position-based hash embeddings for scaling
    graph neural networks", 2021): nodes of a part share a vector. It is what any other small table
    in that order is to be compared with.

    Args:
        num_embeddings: Number of nodes, ``N``.
        embedding_dim: Width of a vector, ``D``.
        order: Parts of the nodes: those of its places.
        levels: Levels to sum, from 1, the coarsest; all if ``None``.
        padding_idx: A node whose row is zero and has no gradient.
        std: Root mean square of the entries; that of ``nn.Embedding`` is 1.
        device: Of the parameters.
        dtype: Of the parameters.

    Attributes:
        parts: The vectors, ``parts.tables[k]`` of shape ``(num_parts, D)``.
        row_order: The order. States have its factors besides, ``rows``, int64.

    Raises:
        ValueError: An order of another number of nodes, levels that it does not have, or numbers
            that are none.

    Example:
        >>> order = hierarchical_order(edge_index, num_nodes=13_752, rows=(64, 6, 38))
        >>> PartitionEmbedding(13_752, 64, order, levels=[1])(torch.tensor([[0, 5]])).shape
        torch.Size([1, 2, 64])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        order: NodeOrder,
        levels: Sequence[int] | None = None,
        padding_idx: int | None = None,
        *,
        std: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        row_order = RowOrder.of(order, num_embeddings, device=device)
        super().__init__(num_embeddings, embedding_dim, padding_idx, row_order)
        check_init("gaussian", std)
        self.parts = PartVectors(row_order.rows, levels, self.embedding_dim, std, device, dtype)

    def reset_parameters(self) -> None:
        """Draws the vectors anew from torch's generator.

        Raises:
            ValueError: The order is lost, as ``to_empty`` loses what is not on the meta device.
        """
        assert self.row_order is not None
        self.row_order.check_filled()
        self.parts.reset_parameters()

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels that are summed."""
        return self.parts.levels

    @property
    def _rows(self) -> tuple[int, ...]:
        assert self.row_order is not None
        return self.row_order.rows

    def _rows_at(self, places: Tensor) -> Tensor:
        out: Tensor = self.parts(places)
        return out

    def _all_rows(self) -> Tensor:
        assert self.row_order is not None
        return self._rows_at(self.row_order.place)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[no-untyped-call]
        _ROWS.save(destination, prefix, self._rows)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        strict, missing_keys, _, error_msgs = args[1:]
        state_dict = _ROWS.take(state_dict, prefix, self._rows, strict, missing_keys, error_msgs)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Arguments, and how much smaller the table is."""
        return (
            f"{super().extra_repr()}, levels={self.levels}, "
            f"compression_ratio={self.compression_ratio:.4g}"
        )


def _checked_levels(levels: Sequence[int] | None, num_factors: int) -> tuple[int, ...]:
    possible = range(1, num_factors)
    if not possible:
        raise ValueError("order has a single factor, and so no parts: give rows of two or more.")
    if levels is None:
        return tuple(possible)
    if not isinstance(levels, Iterable):
        raise TypeError(f"levels={levels!r} must be a sequence, such as [1].")
    levels = tuple(levels)
    if not levels or len(set(levels)) < len(levels) or not set(levels) <= set(possible):
        raise ValueError(
            f"levels={levels} must be some of {tuple(possible)}, each once: an order of "
            f"{num_factors} factors has as many."
        )
    return levels
