"""Batches of interactions: triples to rank, and users to recommend to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Data


class Triples(Dataset):
    """Users, an item that each chose, and one that each did not.

    The latter is drawn from torch's generator, uniformly among all items that are not in ``train``
    with that user, whenever a batch is made. Users who chose every item are left out.

    Args:
        graph: What batches have besides.
        train: Users and items, int64 of shape ``(2, E)``, by user and item, each pair once.
        num_users: Number of users.
        num_items: Number of items.
    """

    def __init__(self, graph: Data, train: Tensor, num_users: int, num_items: int) -> None:
        self.graph = graph
        self.num_items = num_items
        users, items = train
        count = torch.bincount(users, minlength=num_users)
        self._count, self._first = count, count.cumsum(0) - count
        # Of the sorted items of a user, how many other items come before each: what is drawn is
        # one of these, so that a single search turns it into an item.
        others_before = items - (torch.arange(len(users)) - self._first[users])
        self._keys = users * (num_items + 1) + others_before
        self._train = train[:, count[users] < num_items]

    def __len__(self) -> int:
        return self._train.size(1)

    def __getitem__(self, index: int) -> Data:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Data:
        """A batch at once: the graph, ``user``, ``positive`` and ``negative``, ``(B,)`` each."""
        user, positive = self._train[:, torch.as_tensor(indices)]
        batch = _with(self.graph)
        batch.user, batch.positive, batch.negative = user, positive, self.draw_negatives(user)
        return batch

    def draw_negatives(self, user: Tensor) -> Tensor:
        """An item for each user, int64 of shape ``(B,)``, that the user did not choose."""
        others = self.num_items - self._count[user]
        # In float64: float32 reaches no more than 2**24 different items.
        drawn = (torch.rand(len(user), dtype=torch.float64) * others).long()
        keys = user * (self.num_items + 1) + drawn
        return drawn + torch.searchsorted(self._keys, keys, right=True) - self._first[user]


class RankedUsers(Dataset):
    """Users with what is known of them and what is to be found.

    Args:
        graph: What batches have besides.
        seen: Users and items that are not recommended, int64 of shape ``(2, E)``, by user.
        wanted: Users and items that are to be found, likewise. Users without any are left out,
            unless ``users`` names them.
        num_users: Number of users.
        users: The users, int64; those of ``wanted`` if ``None``.
    """

    def __init__(
        self,
        graph: Data,
        seen: Tensor,
        wanted: Tensor,
        num_users: int,
        users: Tensor | None = None,
    ) -> None:
        self.graph = graph
        self.users = wanted[0].unique() if users is None else users
        self._seen, self._wanted = _Rows(seen, num_users), _Rows(wanted, num_users)

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, index: int) -> Data:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Data:
        """A batch at once.

        The graph with ``user`` ``(B,)``, and ``seen`` and ``wanted`` ``(2, …)``: the place of a
        user in the batch, and an item.
        """
        batch = _with(self.graph)
        batch.user = self.users[torch.as_tensor(indices)]
        batch.seen, batch.wanted = self._seen.of(batch.user), self._wanted.of(batch.user)
        return batch


class _Rows:
    """Items of any users."""

    def __init__(self, edges: Tensor, num_users: int) -> None:
        self._items = edges[1]
        self._start = F.pad(torch.bincount(edges[0], minlength=num_users).cumsum(0), (1, 0))

    def of(self, users: Tensor) -> Tensor:
        """Places in ``users`` and items, int64 of shape ``(2, …)``."""
        start, count = self._start[users], self._start[users + 1] - self._start[users]
        place = torch.arange(len(users)).repeat_interleave(count)
        before = (count.cumsum(0) - count)[place]
        slot = start[place] + torch.arange(len(place)) - before
        return torch.stack([place, self._items[slot]])


def _with(graph: Data) -> Data:
    """A graph to add to; its tensors are the same objects."""
    return Data.from_dict(graph.to_dict())


def make_loader(dataset: Dataset, batch_size: int, shuffle: bool = False) -> DataLoader:
    """A loader of batches that the data set makes whole.

    A ``DataLoader``, so that Lightning gives each process its share.
    """
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, collate_fn=_as_it_is)


def _as_it_is(batch: Data) -> Data:
    return batch
