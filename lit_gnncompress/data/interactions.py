"""The data module of recommendation."""

from __future__ import annotations

import copy
import os
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Data
from torch_geometric.utils import degree

from lit_gnncompress.data.interactions_files import (
    MOST_IDS,
    Interactions,
    by_user,
    canonical_interactions,
    load_folder,
    load_interactions,
)
from lit_gnncompress.data.interactions_loaders import RankedUsers, Triples, make_loader
from lit_gnncompress.data.interactions_split import split_interactions


class InteractionDataModule(L.LightningDataModule):
    """Serves users and the items they chose, for recommendation.

    Users and items are the nodes of one graph, users first: item ``i`` is node ``num_users + i``.
    Its edges, both ways, are the interactions that train; those that validate or test are not in
    it. Every batch is that graph (the same tensors each time) and what a step looks at:

    | stage | besides the graph |
    |---|---|
    | train | ``user``, ``positive``, ``negative``: int64 of shape ``(batch_size,)``, an item that \
the user chose and one drawn among those not chosen |
    | validate, test | ``user``: int64 of shape ``(B,)``; ``seen`` and ``wanted``, int64 of shape \
``(2, …)``: the place of a user in the batch and an item; users without anything to find are left \
out |
    | predict | ``user`` and ``seen``, of all users who chose anything |

    What a user is known to have chosen is ``seen``, and not to be recommended: in validation what
    trains, in test also what validates, in prediction everything.

    Args:
        name: One of ``lit_gnncompress.data.available_interactions()``, in any case.
        root: Folder of raw files, which has a folder ``name``; ``None`` takes the environment
            variable ``GNNCOMPRESS_DATA``, and without it ``~/.cache/lit_gnncompress``.
        path: Instead of a ``name``: a folder of your own with ``train.txt`` and, if there are any,
            ``valid.txt`` and ``test.txt``, or one file of all interactions. A line is
            ``user item item …``, whole numbers from 0.
        pairs: Whether a line of ``path`` is ``user item …`` instead, where what follows (a rating,
            a time) is not read.
        batch_size: Triples in a training batch. A step costs a pass over the whole graph, so that
            large ones learn more in the same time.
        eval_batch_size: Users in any other batch: memory is theirs times the number of items.
        val_share: Share of each user's interactions to validate with. ``None`` takes the published
            part, or 0.1 where there is none; 0 trains on that, too.
        test_share: Share of each user's interactions to test with, where no part is published.
        split_seed: Seed of drawn parts.
        num_users: Number of users, if there are more than the highest id tells.
        num_items: Number of items, likewise.

    Raises:
        ValueError: If ``name`` is unknown or a size is below 1; with the data, if they are not as
            described, an id is too high for ``num_users`` or ``num_items``, or a user has nothing
            to train on.
        FileNotFoundError: With the data, if files are missing.
    """

    def __init__(
        self,
        name: str = "communities",
        root: str | os.PathLike[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        pairs: bool = False,
        batch_size: int = 65536,
        eval_batch_size: int = 512,
        val_share: float | None = None,
        test_share: float = 0.2,
        split_seed: int = 0,
        num_users: int | None = None,
        num_items: int | None = None,
    ) -> None:
        super().__init__()
        for argument, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise ValueError(f"{argument}={size} must be at least 1")
        # The folders belong to a machine, not to what was trained: they stay out of checkpoints.
        # The sizes are those of the model there, which a logger takes together with these.
        self.save_hyperparameters(ignore=["root", "path", "num_users", "num_items"])
        self.data_name = canonical_interactions(name) if path is None else os.fspath(path)
        self.root, self.path, self.pairs = root, path, pairs
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_share, self.test_share, self.split_seed = val_share, test_share, split_seed
        self._sizes = (num_users, num_items)
        self._found: Interactions | None = None
        self._parts: Interactions | None = None
        self._data: Data | None = None
        self._moved: tuple[torch.device, dict[str, Tensor]] | None = None

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        valid: Tensor | None = None,
        test: Tensor | None = None,
        **arguments: Any,
    ) -> InteractionDataModule:
        """Serve interactions that are in memory.

        Args:
            edge_index: Users and items, each from 0, int64 of shape ``(2, E)``. Pairs that come
                again count once.
            valid: Those to validate with, likewise.
            test: Those to test with, likewise.
            **arguments: Those of the class, but ``name``, ``root``, ``path`` and ``pairs``.

        Raises:
            ValueError: As the class, if a tensor has another shape or dtype, or a negative id.
        """
        parts = [
            None if part is None else _checked(name, part)
            for name, part in (("edge_index", edge_index), ("valid", valid), ("test", test))
        ]
        module = cls(**arguments)
        module.data_name = "edge_index"
        module._found = Interactions(*parts)  # type: ignore[arg-type]
        return module

    def __repr__(self) -> str:
        graph = "not loaded" if self._data is None else str(self._data)
        return f"{type(self).__name__}({self.data_name!r}, {graph})"

    # Lightning's own text opens the loaders.
    __str__ = __repr__

    @property
    def interactions(self) -> Interactions:
        """The three parts."""
        if self._parts is None:
            if self._found is None and self.path is not None:
                self._found = load_folder(self.path, self.pairs)
            elif self._found is None:
                self._found = load_interactions(self.data_name, self.root)
            arguments = (self.val_share, self.test_share, self.split_seed)
            self._parts = split_interactions(self._found, *arguments)
            self._sizes = _sizes(self._parts, *self._sizes)
        return self._parts

    @property
    def data(self) -> Data:
        """The graph of what trains, on the CPU.

        It has ``edge_index`` int64, both ways, and ``deg`` ``(num_nodes,)`` int64.
        """
        if self._data is None:
            users, items = self.interactions.train
            items = items + self.num_users
            edge_index = torch.stack([torch.cat([users, items]), torch.cat([items, users])])
            num_nodes = self.num_users + self.num_items
            self._data = Data(
                edge_index=edge_index,
                deg=degree(edge_index[1], num_nodes, dtype=torch.long),
                num_nodes=num_nodes,
            )
        return self._data

    @property
    def num_users(self) -> int:
        """Number of users."""
        _ = self.interactions
        return self._sizes[0]  # type: ignore[return-value]

    @property
    def num_items(self) -> int:
        """Number of items."""
        _ = self.interactions
        return self._sizes[1]  # type: ignore[return-value]

    def setup(self, stage: str) -> None:
        """Load the interactions in every process.

        Args:
            stage: Which loaders come next; the graph serves all.
        """
        _ = self.data

    def train_dataloader(self) -> DataLoader:
        """Batches of triples, shuffled; each interaction that trains is in one of them."""
        triples = Triples(self.data, self.interactions.train, self.num_users, self.num_items)
        return make_loader(triples, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Batches of users with something to validate; none if nobody has."""
        parts = self.interactions
        assert parts.valid is not None
        return self._ranked(parts.train, parts.valid) if parts.valid.numel() else []

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Batches of users with something to test; none if nobody has."""
        parts = self.interactions
        assert parts.test is not None
        return self._ranked(self._known("train", "valid"), parts.test) if parts.test.numel() else []

    def predict_dataloader(self) -> DataLoader:
        """Batches of all users who chose anything, in their order."""
        seen = self._known("train", "valid", "test")
        return self._ranked(seen, seen[:, :0], seen[0].unique())

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch to the device; the graph moves once and is the same object thereafter.

        Args:
            batch: The graph with what a step looks at.
            device: Where to.
            dataloader_idx: Which of several loaders gave the batch.

        Returns:
            The batch on ``device``.
        """
        own = self._data is not None and isinstance(batch, Data)
        if not own or batch.edge_index is not self.data.edge_index:
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        if batch.edge_index.device == device:
            return batch
        if self._moved is None or self._moved[0] != device:
            graph = {name: self.data[name].to(device) for name in ("edge_index", "deg")}
            self._moved = (device, graph)
        # `Data.to` works in place, and the loader may give the batch again.
        batch = copy.copy(batch)
        batch.update(self._moved[1])
        return batch.to(device)

    def _known(self, *names: str) -> Tensor:
        return by_user(torch.cat([self.interactions.parts[name] for name in names], dim=1))

    def _ranked(self, seen: Tensor, wanted: Tensor, users: Tensor | None = None) -> DataLoader:
        ranked = RankedUsers(self.data, seen, wanted, self.num_users, users)
        return make_loader(ranked, self.eval_batch_size)


def _checked(name: str, edges: Tensor) -> Tensor:
    if edges.dim() != 2 or edges.size(0) != 2 or edges.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"{name} must be int64 of shape (2, E), users and items, got {edges.dtype} of shape "
            f"{tuple(edges.shape)}"
        )
    outside = (edges < 0) | (edges >= MOST_IDS)
    if bool(outside.any()):
        row, place = outside.nonzero()[0].tolist()
        raise ValueError(
            f"{name}[{row}, {place}]={int(edges[row, place])} is no {('user', 'item')[row]}: ids "
            f"count from 0 to below {MOST_IDS}"
        )
    if name == "edge_index" and edges.size(1) == 0:
        raise ValueError("edge_index holds no interaction: there is nothing to train on")
    return by_user(edges.cpu())


def _sizes(parts: Interactions, *given: int | None) -> tuple[int, int]:
    """Numbers of users and of items."""
    both = []
    for row, size in enumerate(given):
        what = ("user", "item")[row]
        highest = max(int(part[row].max()) for part in parts.parts.values() if part.numel())
        if size is not None and highest >= size:
            raise ValueError(
                f"there is {what} {highest}, but num_{what}s={size}: ids count from 0, so give at "
                f"least {highest + 1}, or None"
            )
        both.append(highest + 1 if size is None else size)
    return both[0], both[1]
