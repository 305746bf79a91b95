"""Node degrees and the buckets that a plan makes of them (topology-aware quantization)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex


def in_degrees(adjacency: Any, num_nodes: int, flow: str = "source_to_target") -> Tensor:
    """In-degree of every node, with duplicate edges counted and before self-loops are added.

    Args:
        adjacency: ``edge_index`` of shape ``(2, E)``, a sparse ``torch.Tensor`` or a
            ``torch_sparse.SparseTensor`` (both transposed, as PyG's ``adj_t``: rows receive).
        num_nodes: Number of receiving nodes, ``N``.
        flow: PyG's direction of messages for a dense ``edge_index``.

    Returns:
        int64, shape ``(N,)``.
    """
    if not isinstance(adjacency, Tensor):  # torch_sparse.SparseTensor
        return adjacency.storage.rowcount()
    if adjacency.layout == torch.sparse_csr:
        return adjacency.crow_indices().diff()
    if adjacency.layout == torch.sparse_csc:
        return count(adjacency.row_indices(), num_nodes)
    if adjacency.layout == torch.sparse_coo:
        return count(adjacency.coalesce().indices()[0], num_nodes)
    return count(adjacency[1 if flow == "source_to_target" else 0], num_nodes)


def out_degrees(adjacency: Any, num_nodes: int, flow: str = "source_to_target") -> Tensor:
    """Out-degree of every node; arguments and result as for :func:`in_degrees`."""
    if not isinstance(adjacency, Tensor):
        return adjacency.storage.colcount()
    if adjacency.layout == torch.sparse_csr:
        return count(adjacency.col_indices(), num_nodes)
    if adjacency.layout == torch.sparse_csc:
        return adjacency.ccol_indices().diff()
    if adjacency.layout == torch.sparse_coo:
        return count(adjacency.coalesce().indices()[1], num_nodes)
    return count(adjacency[0 if flow == "source_to_target" else 1], num_nodes)


def count(index: Tensor, size: int) -> Tensor:
    """How often each of ``0 … size − 1`` occurs in ``index``; a ``bincount`` that compiles."""
    if isinstance(index, EdgeIndex):
        index = index.as_tensor()
    return index.new_zeros(size).scatter_add_(0, index, torch.ones_like(index))


class DegreeBuckets:
    """The degree bucket of each row of a feature matrix.

    Attributes:
        index: int64, shape ``(N,)``: the bucket of each row, lowest degrees in bucket 0.
        num_buckets: Number of buckets; some may be empty.
    """

    def __init__(self, index: Tensor, num_buckets: int) -> None:
        self.index = index
        self.num_buckets = num_buckets
        self._samples: dict[int, Tensor] = {}

    @classmethod
    def from_degrees(cls, degrees: Tensor, splits: Sequence[int]) -> DegreeBuckets:
        """Sorts nodes by ``degrees`` (shape ``(N,)``); a node of degree ``splits[k]`` is above."""
        boundaries = torch.tensor(splits, dtype=torch.int64, device=degrees.device)
        return cls(torch.bucketize(degrees.long(), boundaries, right=True), len(splits) + 1)

    def __len__(self) -> int:
        return self.index.size(0)

    def first(self, num_rows: int) -> DegreeBuckets:
        """Buckets of the leading rows: PyG's samplers and trimmed layers keep a prefix."""
        if num_rows == len(self):
            return self
        return DegreeBuckets(self.index[:num_rows], self.num_buckets)

    def take(self, rows: Tensor) -> DegreeBuckets:
        """Buckets of the given rows (int64)."""
        return DegreeBuckets(self.index[rows], self.num_buckets)

    def counts(self) -> Tensor:
        """Rows per bucket: int64, shape ``(num_buckets,)``."""
        return count(self.index, self.num_buckets)

    def sample(self, rows_per_bucket: int) -> Tensor:
        """Evenly spaced rows of every bucket: int64, shape ``(num_buckets, rows_per_bucket)``.

        Small buckets repeat rows; the entries of an empty bucket are arbitrary rows.
        """
        if torch.compiler.is_compiling():
            return self._sample(rows_per_bucket)
        if rows_per_bucket not in self._samples:  # a full graph's buckets serve all steps
            self._samples[rows_per_bucket] = self._sample(rows_per_bucket)
        return self._samples[rows_per_bucket]

    def _sample(self, rows_per_bucket: int) -> Tensor:
        steps = torch.arange(rows_per_bucket, device=self.index.device)
        if self.num_buckets == 1:
            return (steps * len(self) // rows_per_bucket).unsqueeze(0)
        counts = self.counts().unsqueeze(1)
        first = counts.cumsum(0) - counts
        place = first + steps * counts // rows_per_bucket
        return self.index.argsort(stable=True)[place.clamp_(max=len(self) - 1)]


def quantile_splits(degrees: Tensor, quantiles: Sequence[float]) -> tuple[int, ...]:
    """Degrees that split the nodes at the given fractions.

    Args:
        degrees: Degrees of the nodes of the whole graph, shape ``(N,)``.
        quantiles: Ascending fractions of the nodes.

    Raises:
        ValueError: Fractions that fall on the same degree, so that a bucket would be empty.
    """
    ordered = degrees.sort().values
    splits = [int(ordered[min(int(q * len(ordered)), len(ordered) - 1)]) for q in quantiles]
    if any(a >= b for a, b in zip([0, *splits], splits, strict=False)):
        raise ValueError(
            f"degree_quantiles={list(quantiles)} fall on the degrees {splits} of this graph, "
            f"which leaves a bucket empty. Give fewer or other quantiles, or degree_splits."
        )
    return tuple(splits)
