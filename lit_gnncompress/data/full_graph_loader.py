"""A loader of one batch: the whole graph."""

from __future__ import annotations

from collections.abc import Iterator

from torch_geometric.data import Data


class FullGraphLoader:
    """Yields one graph, itself and not a copy, once an epoch.

    It is deliberately no ``torch.utils.data.DataLoader``: there is nothing to shuffle, collate
    or prefetch, and Lightning leaves other iterables alone, so under DDP every process gets the
    whole graph instead of a share of a list with one element.

    Args:
        data: The graph.
    """

    def __init__(self, data: Data) -> None:
        self.data = data

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Data]:
        yield self.data
