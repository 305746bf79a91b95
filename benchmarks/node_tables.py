"""Tables of vectors for nodes without features: the ways to make them that ``tt_gnn`` compares."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_gnncompress.embedding import (
    NodeOrder,
    PartitionEmbedding,
    TTEmbedding,
    hierarchical_order,
)

DIM, COLUMNS = 64, (4, 4, 4)
_INNER, _PADDING = 6, 1.05  # parts in a part, and places for each of their nodes

Kind = Literal["full", "tt", "parts", "tt+parts"]
Start = Literal["random", "structure"]


@dataclass(frozen=True)
class Method:
    """A way to make a table.

    Attributes:
        kind: A vector for each node, cores, a vector for each part, or cores and such vectors.
        order: How nodes are ordered, for cores and parts.
        rank: Of the cores; 0 where there are none.
        part_size: Nodes of a part of the first level. For ``"parts"``, 0 makes as many parts as
            their vectors have parameters of the cores that they are compared with.
        start: Random vectors, or those of :func:`~lit_gnncompress.embedding.structural_vectors`.
    """

    kind: Kind
    order: Literal["none", "random", "flat_metis", "metis"] = "metis"
    rank: int = 0
    part_size: int = 60
    start: Start = "random"

    @property
    def name(self) -> str:
        """For people and files."""
        start = ", start by structure" if self.start == "structure" else ""
        if self.kind == "full":
            return f"full table{start}"
        if self.kind == "parts":
            size = "of equal size" if self.part_size == 0 else f"of {self.part_size} nodes"
            return f"vectors of parts {size}{start}"
        parts = " + parts" if self.kind == "tt+parts" else ""
        return f"TT{parts} rank {self.rank}, {self.order}, parts of {self.part_size}{start}"

    def rows(self, num_nodes: int) -> tuple[int, ...]:
        """Factors of the places."""
        if self.kind == "parts":
            parts = self._parts(num_nodes)
            return (parts, math.ceil(_PADDING * num_nodes / parts))
        parts = math.ceil(num_nodes / self.part_size)
        return (parts, _INNER, math.ceil(_PADDING * num_nodes / (parts * _INNER)))

    def _parts(self, num_nodes: int) -> int:
        if self.part_size:
            return math.ceil(num_nodes / self.part_size)
        cores = TTEmbedding(
            num_nodes, DIM, rank=MAIN.rank, rows=MAIN.rows(num_nodes), columns=COLUMNS,
            device="meta",
        )  # fmt: skip
        return sum(parameter.numel() for parameter in cores.parameters()) // DIM


FULL = Method("full", "none")
MAIN = Method("tt", rank=8)
"""The configuration that did best before, on other splits; others vary it."""

WITH_PARTS = Method("tt+parts", rank=8, part_size=240)
"""Larger parts, as each has a vector."""

EQUAL_PARTS = Method("parts", part_size=0)
"""As many parts as their vectors have parameters of the cores of :data:`MAIN`."""

PART_SIZES = tuple(Method("parts", part_size=size) for size in (30, 60, 120, 240, 480))
"""Sizes among which validation chooses for vectors of parts."""

GROUPS: dict[str, tuple[Method, ...]] = {
    "core": (
        FULL,
        MAIN,
        EQUAL_PARTS,
        replace(FULL, start="structure"),
        replace(MAIN, start="structure"),
        replace(EQUAL_PARTS, start="structure"),
    ),
    "orders": (
        replace(MAIN, order="random"),
        replace(MAIN, order="flat_metis"),
        WITH_PARTS,
        replace(WITH_PARTS, start="structure"),
    ),
    "sweep": (
        replace(MAIN, rank=16),
        replace(MAIN, rank=32),
        *(replace(MAIN, part_size=size) for size in (30, 120, 240, 480, 960)),
    ),
}


def make_order(
    method: Method, edge_index: Tensor, num_nodes: int, seed: int, cache_dir: str | None = None
) -> NodeOrder | None:
    """The order that a method wants; ``None`` if it wants none."""
    if method.kind == "full":
        return None
    return hierarchical_order(
        edge_index,
        num_nodes,
        method.rows(num_nodes),
        method=method.order,
        seed=seed,
        cache_dir=cache_dir,
        progress=False,
    )


def make_table(
    method: Method, num_nodes: int, order: NodeOrder | None, vectors: Tensor | None, std: float
) -> nn.Module:
    """The table of a method, drawn from torch's generator.

    Args:
        method: Which.
        num_nodes: Number of nodes, ``N``.
        order: See :func:`make_order`.
        vectors: Shape ``(N, 64)``; what a start by structure begins with.
        std: Root mean square of all entries.
    """
    by_structure = method.start == "structure"
    if method.kind == "full":
        table = nn.Embedding(num_nodes, DIM)
        with torch.no_grad():
            table.weight.mul_(std)
            if by_structure:
                table.weight.copy_(_of_size(vectors, std))
        return table
    assert order is not None
    if method.kind == "parts":
        parts = PartitionEmbedding(num_nodes, DIM, order, std=std)
        if by_structure:
            parts.parts.fit_(_of_size(vectors, std), order.place)
        return parts
    arguments: dict[str, Any] = {
        "order": order,
        "columns": COLUMNS,
        "parts": method.kind == "tt+parts",
    }
    if by_structure:
        return TTEmbedding.from_pretrained(
            _of_size(vectors, std), freeze=False, rank=method.rank, **arguments
        )
    return TTEmbedding(num_nodes, DIM, rank=method.rank, std=std, **arguments)


def _of_size(vectors: Tensor | None, std: float) -> Tensor:
    assert vectors is not None
    return vectors * (std / vectors.square().mean().sqrt())
