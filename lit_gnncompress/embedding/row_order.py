"""Where the rows of a table lie: a node order as a part of a module."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lit_gnncompress.embedding.node_order import NodeOrder


_HASH = "graph_hash"


class RowOrder(nn.Module):
    """The place of each row, kept and saved with the module that it is in.

    A state that holds another order of the same graph replaces this one, because what was trained
    with it lies in its places.

    Args:
        place: Place of each row, int64 or int32, shape ``(N,)``.
        rows: Factors of the places.
        graph_hash: Hash of the graph that was ordered; ``None`` if it is not known.
        device: Of the module.

    Attributes:
        place: Place of each row, shape ``(N,)``, int32 where the places allow it.
        graph_hash: Hash of the graph that was ordered; ``None`` if it is not known. States hold it
            as the bytes of its text, uint8, so that they are tensors alone.

    Raises:
        ValueError: Places outside the capacity, or several rows in one place.
    """

    place: Tensor

    def __init__(
        self,
        place: Tensor,
        rows: Sequence[int],
        graph_hash: str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.rows = tuple(rows)
        _check_places(place, self.capacity)
        dtype = torch.int32 if self.capacity <= 2**31 else torch.int64
        self.register_buffer("place", place.detach().to(device, dtype, copy=True))
        self.graph_hash = graph_hash

    @classmethod
    def of(
        cls,
        order: NodeOrder,
        num_embeddings: int,
        rows: Sequence[int] | None = None,
        device: torch.device | str | None = None,
    ) -> RowOrder:
        """The order of some nodes.

        Raises:
            ValueError: An order of another number of nodes, or one made for other factors.
        """
        if order.num_nodes != num_embeddings:
            raise ValueError(
                f"order has {order.num_nodes} nodes, num_embeddings={num_embeddings}: order this "
                f"graph."
            )
        if rows is not None and tuple(rows) != tuple(order.rows):
            raise ValueError(
                f"order was made for rows={tuple(order.rows)}, not for rows={tuple(rows)}: leave "
                f"rows out, or order the graph for them."
            )
        return cls(order.place, order.rows, order.graph_hash, device)

    @property
    def capacity(self) -> int:
        """Number of places."""
        return math.prod(self.rows)

    def forward(self, indices: Tensor) -> Tensor:
        """Places of rows, with the shape of ``indices``."""
        return self.place[indices]

    def extra_repr(self) -> str:
        """The factors, and the graph where it is known."""
        graph = f", graph_hash={self.graph_hash!r}" if self.graph_hash else ""
        return f"{self.place.numel()}, rows={self.rows}{graph}"

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[no-untyped-call]
        if self.graph_hash:
            letters = torch.tensor(list(self.graph_hash.encode()), dtype=torch.uint8)
            destination[prefix + _HASH] = letters

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        place = state_dict.get(prefix + "place")
        letters = state_dict.get(prefix + _HASH)
        state_dict = {key: value for key, value in state_dict.items() if key != prefix + _HASH}
        try:
            if place is not None:
                self._check_same_kind(place, prefix)
            if letters is not None and letters.numel():
                self._take_hash(bytes(letters.tolist()).decode(), prefix)
        except ValueError as problem:
            error_msgs.append(str(problem))
            return
        super()._load_from_state_dict(  # type: ignore[no-untyped-call]
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def _check_same_kind(self, place: Tensor, prefix: str) -> None:
        if place.shape != self.place.shape:
            raise ValueError(
                f"{prefix}place orders {place.numel()} nodes, the table here has "
                f"{self.place.numel()}: it was made for another graph."
            )
        try:
            _check_places(place, self.capacity)
        except ValueError as problem:
            raise ValueError(f"{prefix}place does not fit rows={self.rows}: {problem}") from None

    def _take_hash(self, graph_hash: str, prefix: str) -> None:
        if self.graph_hash and self.graph_hash != graph_hash:
            raise ValueError(
                f"{prefix}{_HASH}: the state was trained with an order of the graph {graph_hash}, "
                f"the order here is of {self.graph_hash}. Load it into a table for that graph."
            )
        self.graph_hash = graph_hash


def _check_places(place: Tensor, capacity: int) -> None:
    if place.dim() != 1 or place.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"order.place must be int64 or int32 of shape (N,), got {place.dtype} of shape "
            f"{tuple(place.shape)}."
        )
    if place.is_meta or place.numel() == 0:
        return
    low, high = (int(end) for end in place.aminmax())
    if low < 0 or high >= capacity:
        raise ValueError(
            f"order.place has the place {low if low < 0 else high}: there are {capacity}, counted "
            f"from 0."
        )
    ordered, node = place.sort(stable=True)
    if bool((twice := ordered.diff() == 0).any()):
        shared = int(twice.nonzero()[0, 0])
        first, second = node[shared : shared + 2].tolist()
        raise ValueError(
            f"order.place is no bijection: nodes {first} and {second} share the place "
            f"{int(ordered[shared])}."
        )
