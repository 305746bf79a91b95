"""Where the rows of a table lie: a node order as a part of a module."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_gnncompress.embedding.node_order import NodeOrder

_HASH = "hash_letters"  # no attribute: functional_call puts tensors in the place of those


class RowOrder(nn.Module):
    """The place of each row, kept and saved with the module that it is in.

    A state that holds another order of the same graph replaces this one, because what was trained
    with it lies in its places.

    Args:
        place: Place of each row, int64 or int32, shape ``(N,)``.
        rows: Factors of the places.
        graph_hash: Hash of the graph that was ordered; ``None`` if it is not known.
        device: Of the module. On ``"meta"`` the places wait on the CPU for ``to_empty``.

    Attributes:
        place: Place of each row, shape ``(N,)``, int32 where the places allow it.
        graph_hash: Hash of the graph that was ordered; ``None`` if it is not known. States hold it
            as ``hash_letters``, the bytes of its text, uint8, so that they are tensors alone.

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
        where = torch.empty(0, device=device).device  # that of `with torch.device(…)`, if any
        place = place.detach()
        self._waiting: Tensor | None = None
        if where.type == "meta" and not place.is_meta:
            self._waiting = place.to("cpu", dtype, copy=True)
        self.register_buffer("place", place.to(where, dtype, copy=True))
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
            TypeError: Something else than a ``NodeOrder``.
            ValueError: An order of another number of nodes, or one made for other factors.
        """
        if not isinstance(order, NodeOrder):
            raise TypeError(
                f"order is a {type(order).__name__} and must be a NodeOrder, as hierarchical_order "
                f"makes one; of places, NodeOrder(rows, place, method)."
            )
        if order.num_nodes != num_embeddings:
            raise ValueError(
                f"order has {order.num_nodes} nodes, num_embeddings={num_embeddings}: order the "
                f"graph of the table, or give num_embeddings={order.num_nodes}."
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

    def check_filled(self) -> None:
        """Refuses places that were lost, as by ``to_empty`` of a module on another device.

        Raises:
            ValueError: Places outside the capacity, or several rows in one place.
        """
        try:
            _check_places(self.place, self.capacity)
        except ValueError as problem:
            raise ValueError(
                f"row_order.place holds no order: {problem} It is lost where to_empty() is called "
                f"on a table that is not on the meta device. Make the table with device='meta', or "
                f"load a state."
            ) from None

    def extra_repr(self) -> str:
        """The factors, and the graph where it is known."""
        graph = f", graph_hash={self.graph_hash!r}" if self.graph_hash else ""
        return f"{self.place.numel()}, rows={self.rows}{graph}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RowOrder:
        was_meta = self.place.is_meta
        super()._apply(fn, recurse)
        if was_meta and not self.place.is_meta and self._waiting is not None:  # to_empty
            self.place = self._waiting.to(self.place.device)
            self._waiting = None
        return self

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
            table = prefix.removesuffix("row_order.")
            raise ValueError(other_size(table, place.numel(), self.place.numel()))
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


def other_size(prefix: str, ordered: int, num_embeddings: int) -> str:
    """That a state has more or fewer rows than a table, and what to do."""
    return (
        f"{prefix}row_order.place: the state orders {ordered} nodes, the table here has "
        f"num_embeddings={num_embeddings}. It was made for another graph, or extended since: build "
        f"the table with num_embeddings={ordered} (a model with so many nodes)."
    )


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
