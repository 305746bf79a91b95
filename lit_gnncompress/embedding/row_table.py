"""What all small tables share: they stand where ``nn.Embedding`` stood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_gnncompress.embedding.row_order import RowOrder, other_size

if TYPE_CHECKING:
    from lit_gnncompress.embedding.node_order import NodeOrder


class RowTable(nn.Module, ABC):
    """A table of which rows are made when they are asked for.

    Args:
        num_embeddings: Number of rows, ``N``.
        embedding_dim: Number of columns, ``D``.
        padding_idx: A row that is zero and has no gradient; negative ones count from the end.
        row_order: Where rows lie; row ``i`` in place ``i`` if ``None``.

    Raises:
        ValueError: Numbers below 1, or a ``padding_idx`` that is no row.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        row_order: RowOrder | None,
    ) -> None:
        super().__init__()
        for name, value in (("num_embeddings", num_embeddings), ("embedding_dim", embedding_dim)):
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise ValueError(f"{name}={value} must be a whole number, 1 or more.")
        self.num_embeddings, self.embedding_dim = int(num_embeddings), int(embedding_dim)
        self.padding_idx = _checked_padding(padding_idx, self.num_embeddings)
        self.row_order = row_order

    @abstractmethod
    def _rows_at(self, places: Tensor) -> Tensor:
        """The rows in some places, shape ``(*places.shape, D)``."""

    @abstractmethod
    def _all_rows(self) -> Tensor:
        """All rows, shape ``(N, D)``."""

    @property
    @abstractmethod
    def _rows(self) -> tuple[int, ...]:
        """Factors of the places, to which an order must fit."""

    def forward(self, indices: Tensor) -> Tensor:
        """Looks rows up.

        Args:
            indices: Rows, int64 or int32, any shape.

        Returns:
            The rows, shape ``(*indices.shape, D)``, in the dtype of the parameters.

        Raises:
            TypeError: ``indices`` is no tensor.
            ValueError: Indices that are not integers.
            IndexError: An index below 0 or from ``num_embeddings`` on. On a GPU, where nothing
                waits for the indices, it is the device that stops with an assertion.
        """
        check_indices(indices, self.num_embeddings)
        places = indices if self.row_order is None else self.row_order(indices)
        out = self._rows_at(places)
        if self.padding_idx is None:
            return out
        return out.masked_fill((indices == self.padding_idx).unsqueeze(-1), 0)

    def full_weight(self) -> Tensor:
        """All rows, shape ``(N, D)``, made at once; differentiable in the parameters."""
        out = self._all_rows()
        if self.padding_idx is None:
            return out
        row = torch.arange(self.num_embeddings, device=out.device).unsqueeze(1)
        return out.masked_fill(row == self.padding_idx, 0)

    @property
    def weight(self) -> Tensor:
        """All rows, for models that read ``embedding.weight``: :meth:`full_weight`, each time anew.

        Assigning raises an ``AttributeError``. What is written in place, as by
        ``nn.init.normal_(table.weight)``, goes to a copy and is lost, and nobody can see it: call
        ``reset_parameters``, or make the table by ``from_pretrained``.
        """
        return self.full_weight()

    @weight.setter
    def weight(self, value: Any) -> None:
        self._refuse_weight()

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As for any module; a ``weight`` there cannot be."""
        if name == "weight":  # nn.Module takes parameters before a property sees them
            self._refuse_weight()
        super().register_parameter(name, param)

    def _refuse_weight(self) -> None:
        kind = type(self).__name__
        ways = {
            "from_pretrained": f"make the table by {kind}.from_pretrained(weight)",
            "reset_parameters": "draw it anew by reset_parameters()",
        }
        possible = [remedy for name, remedy in ways.items() if hasattr(self, name)]
        raise AttributeError(
            f"weight cannot be set: a {kind} makes its rows when they are asked for, and keeps "
            f"none. To have others, {', or '.join(possible) or 'quantize another table'}."
        )

    @property
    def compression_ratio(self) -> float:
        """``N * D`` over the number of parameters; see :attr:`num_bytes` for all that is kept."""
        kept = sum(parameter.numel() for parameter in self._trained)
        return self.num_embeddings * self.embedding_dim / kept

    @property
    def num_bytes(self) -> int:
        """Bytes of everything that is kept: parameters and, 4 for each row, the order.

        Without an order, for instance with nodes that are numbered by it, the latter are saved.
        """
        kept = [*self._trained, *self.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    @property
    def _trained(self) -> list[Tensor]:
        """All that is trained."""
        return list(self.parameters())

    @property
    def _device(self) -> torch.device:
        return next(iter([*self._trained, *self.buffers()])).device

    def extend(self, order: NodeOrder) -> None:
        """Takes in new nodes that an order has placed between the known ones.

        Args:
            order: An order of more nodes, for the same factors, in which the ``N`` nodes that are
                known come first and are where they were: what ``NodeOrder.assign`` gives.

        Raises:
            ValueError: An order made for other factors, one of fewer nodes, or one that moves a
                known node; or a table without an order whose rows the new order would move.
        """
        new = RowOrder.of(order, order.num_nodes, self._rows)
        if new.place.numel() < self.num_embeddings:
            raise ValueError(
                f"order has {new.place.numel()} nodes, fewer than num_embeddings="
                f"{self.num_embeddings}."
            )
        known = new.place[: self.num_embeddings]
        if self.row_order is None:
            device = self._device
            before = torch.arange(self.num_embeddings, dtype=known.dtype)
        else:
            device = self.row_order.place.device
            before = self.row_order.place.to(known.device)
        if bool((moved := known != before).any()):
            node = int(moved.nonzero()[0, 0])
            raise ValueError(
                f"order moves node {node} from place {int(before[node])} to {int(known[node])}: "
                f"its row would become another one's. Extend the order that the table has."
            )
        self.row_order = new.to(device)
        self.num_embeddings = new.place.numel()

    def extra_repr(self) -> str:
        """Arguments, and how much smaller the table is."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        place = state_dict.get(prefix + "row_order.place")
        error_msgs: list[str] = args[-1]
        given = any(key.startswith(prefix) for key in state_dict)  # in part, with strict=False
        if self.row_order is not None and place is None and given:
            error_msgs.append(
                f"{prefix}row_order: the state has no order, the table here has one. Build it "
                f"without, rows={self.row_order.rows}."
            )
        elif self.row_order is None and place is not None:
            # A table can be built without the graph: its order comes with its cores.
            if place.numel() != self.num_embeddings:
                error_msgs.append(other_size(prefix, place.numel(), self.num_embeddings))
            else:
                self._adopt(place, prefix, error_msgs)
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[no-untyped-call]

    def _adopt(self, place: Tensor, prefix: str, error_msgs: list[str]) -> None:
        try:
            self.row_order = RowOrder(place, self._rows, device=self._device)
        except ValueError as problem:
            error_msgs.append(f"{prefix}row_order does not fit rows={self._rows}: {problem}")


def check_indices(indices: Tensor, num_embeddings: int, name: str = "indices") -> None:
    """Refuses indices that are no rows; on a GPU, and compiled, without waiting for them.

    Args:
        indices: The indices.
        num_embeddings: Number of rows.
        name: Of the argument that they came in.

    Raises:
        TypeError: No tensor.
        ValueError: Neither int64 nor int32.
        IndexError: An index below 0 or from ``num_embeddings`` on.
    """
    if not isinstance(indices, Tensor):
        raise TypeError(
            f"{name} is a {type(indices).__name__} and must be a tensor, int64 or int32: "
            f"torch.as_tensor({name})."
        )
    if indices.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} must be int64 or int32, got {indices.dtype}.")
    if indices.numel() == 0 or indices.is_meta:
        return
    if torch.compiler.is_compiling() or indices.is_cuda:
        inside = ((indices >= 0) & (indices < num_embeddings)).all()
        torch._assert_async(inside, f"{name} outside of {num_embeddings} embeddings")
        return
    low, high = (int(end) for end in indices.aminmax())
    if low < 0 or high >= num_embeddings:
        wrong = low if low < 0 else high
        place = (indices == wrong).nonzero()[0].tolist() if indices.dim() else []
        raise IndexError(
            f"{name}{place or ''}={wrong} is no row: num_embeddings={num_embeddings}, counted "
            f"from 0."
        )


def _checked_padding(padding_idx: int | None, num_embeddings: int) -> int | None:
    if padding_idx is None:
        return None
    if not -num_embeddings <= padding_idx < num_embeddings:
        raise ValueError(
            f"padding_idx={padding_idx} is no row: num_embeddings={num_embeddings}, counted from 0."
        )
    return padding_idx % num_embeddings
