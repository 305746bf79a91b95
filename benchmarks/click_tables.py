"""Tables of categories: the ways to make them that ``dlrm_quality`` compares at equal sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.click_orders import Order
from lit_gnncompress.embedding import NodeOrder, TTEmbedding
from lit_gnncompress.embedding.choosing import choose_shape
from lit_gnncompress.embedding.factors import TTShape

DIM = 16
Kind = Literal["full", "tt", "tt+hot", "product", "sum", "hash"]
NAMES: dict[Kind, str] = {
    "full": "full tables",
    "tt": "TT",
    "tt+hot": "TT + hot rows",
    "product": "quotient × remainder",
    "sum": "quotient + remainder",
    "hash": "hashing",
}


@dataclass(frozen=True)
class Method:
    """A way to make tables.

    Attributes:
        kind: What stands for a table: all vectors; cores; cores of half the rank, and vectors of
            the most frequent categories; products or sums of the rows of two small tables; rows
            that categories share.
        rank: Of the tensor train whose size it has; 0 for full tables.
        order: How categories lie: digits, quotients and remainders are those of their places.
    """

    kind: Kind
    rank: int = 0
    order: Order = "none"

    @property
    def name(self) -> str:
        """For people and files."""
        if self.kind == "full":
            return NAMES[self.kind]
        return f"{NAMES[self.kind]}, size of rank {self.rank}, {self.order}"


@cache
def train_shape(num_embeddings: int, rank: int) -> TTShape | None:
    """Balanced factors of a table; ``None`` where a tensor train would be no smaller."""
    if not rank:
        return None
    shape = choose_shape(num_embeddings, DIM, rank=rank)
    return shape if shape.num_parameters < num_embeddings * DIM else None


def make_table(
    method: Method, num_embeddings: int, order: NodeOrder | None, counts: Tensor, std: float
) -> nn.Module:
    """What stands for the table of a field.

    Args:
        method: What to make.
        num_embeddings: Categories.
        order: Their order; ``None`` keeps the table full.
        counts: How often each occurs in the rows to train on, int64.
        std: Standard deviation of the vectors at the start.
    """
    shape = train_shape(num_embeddings, method.rank)
    if order is None or shape is None:
        full = nn.Embedding(num_embeddings, DIM)
        nn.init.normal_(full.weight, std=std)
        return full
    size = shape.num_parameters // DIM  # rows of as many parameters
    if method.kind == "tt":
        return TTEmbedding(num_embeddings, DIM, rank=method.rank, order=order, std=std)
    if method.kind == "tt+hot":
        return HotRows(num_embeddings, size, method.rank // 2, order, counts, std)
    place = order.place.argsort().argsort()  # without the free places
    if method.kind == "hash":
        return HashedRows(place, size, std)
    return QuotientRemainder(place, size, "sum" if method.kind == "sum" else "product", std)


class HashedRows(nn.Module):
    """Categories share a row if their places leave the same remainder.

    Args:
        place: Place of each category.
        size: Rows of the table.
        std: Standard deviation of its entries at the start.
    """

    place: Tensor

    def __init__(self, place: Tensor, size: int, std: float) -> None:
        super().__init__()
        self.num_embeddings = len(place)
        self.register_buffer("place", place % size)
        self.weight = nn.Parameter(torch.randn(size, DIM) * std)

    def forward(self, categories: Tensor) -> Tensor:
        """Vectors of categories, shape ``(B, D)``."""
        return F.embedding(self.place[categories], self.weight)


class QuotientRemainder(nn.Module):
    """A row of a table of remainders and one of a table of quotients (Shi et al., KDD 2020).

    No two categories have both in common. Products begin near the row of the remainder.

    Args:
        place: Place of each category.
        size: Rows of both tables together; at least about ``2 * sqrt(N)`` are taken.
        operation: How both rows make a vector.
        std: Standard deviation of the vectors at the start.
    """

    place: Tensor

    def __init__(
        self, place: Tensor, size: int, operation: Literal["product", "sum"], std: float
    ) -> None:
        super().__init__()
        number = self.num_embeddings = len(place)
        fitting = [m for m in range(1, number + 1) if m + -(-number // m) <= size]
        self.divisor = max(fitting, default=math.isqrt(number - 1) + 1)
        self.operation = operation
        self.register_buffer("place", place)
        own = std / 2**0.5 if operation == "sum" else std
        middle = 0.0 if operation == "sum" else 1.0
        self.remainders = nn.Parameter(torch.randn(self.divisor, DIM) * own)
        self.quotients = nn.Parameter(torch.randn(-(-number // self.divisor), DIM) * own + middle)

    def forward(self, categories: Tensor) -> Tensor:
        """Vectors of categories, shape ``(B, D)``."""
        place = self.place[categories]
        remainder = F.embedding(place % self.divisor, self.remainders)
        quotient = F.embedding(place // self.divisor, self.quotients)
        return remainder * quotient if self.operation == "product" else remainder + quotient


class HotRows(nn.Module):
    """Vectors of their own for the most frequent categories, cores for the others.

    Args:
        num_embeddings: Categories.
        size: Vectors that the parameters of all would make.
        rank: Of the cores; what they leave of the size goes into vectors.
        order: Where categories lie.
        counts: How often each category occurs.
        std: Standard deviation of the vectors at the start.
    """

    slot: Tensor

    def __init__(
        self,
        num_embeddings: int,
        size: int,
        rank: int,
        order: NodeOrder,
        counts: Tensor,
        std: float,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.cold = TTEmbedding(num_embeddings, DIM, rank=rank, order=order, std=std)
        hot = max(0, size - -(-self.cold.shape.num_parameters // DIM))
        slot = torch.full((num_embeddings,), -1)
        slot[counts.argsort(descending=True, stable=True)[:hot]] = torch.arange(hot)
        self.register_buffer("slot", slot)
        self.weight = nn.Parameter(torch.randn(hot, DIM) * std)

    def forward(self, categories: Tensor) -> Tensor:
        """Vectors of categories, shape ``(B, D)``."""
        slot = self.slot[categories]
        if not len(self.weight):
            return self.cold(categories)
        hot = F.embedding(slot.clamp(min=0), self.weight)
        return torch.where((slot >= 0).unsqueeze(1), hot, self.cold(categories))


def num_parameters(tables: Sequence[nn.Module] | nn.Module) -> int:
    """Numbers that are trained."""
    modules = [tables] if isinstance(tables, nn.Module) else tables
    return sum(each.numel() for module in modules for each in module.parameters())
