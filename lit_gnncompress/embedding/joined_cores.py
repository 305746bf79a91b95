"""Cores of several tables behind one another, so that one call finds rows of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_gnncompress.embedding.train_table import TrainTable

_DIGITS = 2**31
"""Above what digits of half the cores, as one number, can be."""


class JoinedNumbers(NamedTuple):
    r"""What turns places in tables into places in the train that joins them.

    Core :math:`k` of it has the slices of the first table, then those of the second, and so on:
    :math:`P_k = \sum_t p_{t,k}` of them. Row :math:`i` of table :math:`t` is that of the digits
    :math:`i_k + \sum_{u < t} p_{u,k}`, whose number is, with the spans
    :math:`s_k = \prod_{l > k} p_{t,l}` and :math:`S_k = \prod_{l > k} P_l`,

    .. math:: base_t + i + \sum_{k < d} \lfloor i / s_k \rfloor \, (S_k - p_{t,k+1} S_{k+1}).

    Attributes:
        bases: Of each table, int64, shape ``(T,)``.
        spans: Of each table and all its cores, shape ``(T, d)``.
        factors: Of each table and all its cores but the last, shape ``(T, d - 1)``.
    """

    bases: Tensor
    spans: Tensor
    factors: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> JoinedNumbers:
        """Those of tables with these factors of their rows."""
        starts = [[0] * len(rows[0])]
        for of_table in rows:
            starts.append([a + b for a, b in zip(starts[-1], of_table, strict=True)])
        joined = _spans(starts.pop())
        bases = [sum(s * span for s, span in zip(of, joined, strict=True)) for of in starts]
        factors = [
            [joined[k] - of_table[k + 1] * joined[k + 1] for k in range(len(of_table) - 1)]
            for of_table in rows
        ]
        numbers = (bases, [_spans(of_table) for of_table in rows], factors)
        return cls(*(torch.tensor(each, device=device) for each in numbers))

    def of_table(self, number: int) -> JoinedNumbers:
        """Those of one table, for places of any shape."""
        return JoinedNumbers(*(values[number] for values in self))

    def __call__(self, places: Tensor) -> Tensor:
        """Places in the joined train, int64, of the places in each table, shape ``(B, T)``."""
        places = places.long()
        out = places + self.bases
        for k in range(self.factors.size(-1)):
            digits = torch.div(places, self.spans[..., k], rounding_mode="floor")
            out.addcmul_(digits, self.factors[..., k])
        return out


def joinable(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers of tables in groups whose joined digits kernels can count.

    Args:
        rows: Factors of the rows of each table, equally many.
    """
    groups: list[list[int]] = [[]]
    for number, own in enumerate(rows):
        together = [*(rows[other] for other in groups[-1]), own]
        joined = [sum(of_core) for of_core in zip(*together, strict=True)]
        halves = joined[: len(joined) // 2], joined[len(joined) // 2 :]
        if groups[-1] and any(math.prod(half) >= _DIGITS for half in halves):
            groups.append([])
        groups[-1].append(number)
    return groups


class JoinedCores(nn.Module):
    """The cores of tables that agree in columns and ranks, one tensor for each place in the train.

    The tables give up their own cores: from now on they see slices of these.

    Args:
        tables: Of the same width, columns, ranks, dtype and device; two or more.
        columns: Where categories of each table are among those of all.

    Attributes:
        columns: The same, int64.
        padding: The row of each table that is zero, int64; -1 where there is none.
        has_padding: Whether there is any.
    """

    columns: Tensor
    padding: Tensor
    bases: Tensor
    spans: Tensor
    factors: Tensor

    def __init__(self, tables: Sequence[TrainTable], columns: Sequence[int]) -> None:
        super().__init__()
        rows = [table.shape.rows for table in tables]
        self.ends = [tuple(accumulate(of_core, initial=0)) for of_core in zip(*rows, strict=True)]
        for k, cores in enumerate(zip(*(table.cores for table in tables), strict=True)):
            core = torch.cat([core.detach() for core in cores])
            setattr(self, f"core_{k}", nn.Parameter(core, cores[0].requires_grad))
        device = self.cores[0].device
        # No index is below 0.
        padding = [-1 if table.padding_idx is None else table.padding_idx for table in tables]
        self.has_padding = max(padding) >= 0
        self._numbers = JoinedNumbers.of(rows)._asdict() | {
            "padding": torch.tensor(padding, device="cpu"),
            "columns": torch.tensor(list(columns), device="cpu"),
        }
        self._put_numbers(device)
        for number, table in enumerate(tables):
            table.cores = CoreSlices(self, number)  # type: ignore[assignment]

    def _put_numbers(self, device: torch.device) -> None:
        for name, values in self._numbers.items():
            # A GPU would be waited for if they came from the host with every batch.
            self.register_buffer(name, values.to(device, copy=True), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> JoinedCores:
        was_meta = self.bases.is_meta
        super()._apply(fn, recurse)
        if was_meta and not self.bases.is_meta:  # to_empty: no state has the numbers
            self._put_numbers(self.bases.device)
        return self

    @property
    def cores(self) -> list[Tensor]:
        """Core ``k`` of shape ``(P_k, R_{k-1}, q_k, R_k)``."""
        return [getattr(self, f"core_{k}") for k in range(len(self.ends))]

    def has(self, table: nn.Module, number: int) -> bool:
        """Whether a table sees the slices of this number."""
        cores = getattr(table, "cores", None)
        return isinstance(cores, CoreSlices) and cores.is_of(self, number)

    def forward(self, places: Tensor) -> Tensor:
        """Numbers in the joined train.

        Args:
            places: Places in each table, int64 or int32, shape ``(B, tables)``.

        Returns:
            int64, same shape.
        """
        return self._places(places)

    def of_table(self, number: int, places: Tensor) -> Tensor:
        """The same of places in one table, any shape."""
        return self._places.of_table(number)(places)

    @property
    def _places(self) -> JoinedNumbers:
        return JoinedNumbers(self.bases, self.spans, self.factors)

    # The tables save and load their slices.

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        pass

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
        if strict:
            unexpected_keys += [key for key in state_dict if key.startswith(prefix)]


class CoreSlices(nn.Module):
    """The cores of one table: slices of joined ones, saved and loaded as cores of its own.

    Args:
        joined: The cores of all tables.
        number: Which table.
    """

    def __init__(self, joined: JoinedCores, number: int) -> None:
        super().__init__()
        self._joined = (joined,)  # no child: its parameters are not the table's
        self.number = number

    def is_of(self, joined: JoinedCores, number: int) -> bool:
        """Whether these are the slices of this number of ``joined``, or of a replica of it."""
        return self.number == number and self._joined[0].ends is joined.ends

    def __len__(self) -> int:
        return len(self._joined[0].cores)

    def __getitem__(self, k: int) -> Tensor:
        ends = self._joined[0].ends[k]
        return self._joined[0].cores[k][ends[self.number] : ends[self.number + 1]]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(len(self)))

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        for k, core in enumerate(self):
            destination[f"{prefix}{k}"] = core if keep_vars else core.detach()

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
        own = {f"{prefix}{k}": core for k, core in enumerate(self)}
        given = [key for key in state_dict if key.startswith(prefix)]
        if strict:
            missing_keys += [key for key in own if key not in state_dict]
            unexpected_keys += [key for key in given if key not in own]
        with torch.no_grad():
            for key, core in own.items():
                if key not in state_dict:
                    continue
                if core.is_meta:
                    error_msgs.append(
                        f"{key}: the collection is on the meta device, where it has no cores to "
                        f"read into. Call to_empty(device=…) before."
                    )
                elif state_dict[key].shape == core.shape:
                    core.copy_(state_dict[key])
                else:
                    error_msgs.append(
                        f"{key} has shape {tuple(state_dict[key].shape)}, the table here "
                        f"{tuple(core.shape)}."
                    )


def _spans(rows: Sequence[int]) -> list[int]:
    return [math.prod(rows[k + 1 :]) for k in range(len(rows))]
