"""One half of the cores of a tensor train: a matrix for each of its digits."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.kernels.cuda.tt_product import (
    Factor,
    add_by_atomics,
    multiply,
    sum_segments,
)

_KEYS_A_ROW = 4
"""More pairs of digits than that, and those of the rows are multiplied, not all."""

_LARGEST = 1 << 27
"""Floats of a table of all pairs: 512 MB."""


class Half:
    """The matrices of one core, or those of the pairs of digits of two.

    Which pairs are multiplied, all or one for each slot, depends on shapes alone: no GPU is asked
    how many differ.

    Args:
        cores: One or two, float32.
        slots: Number of rows that are looked up.
    """

    def __init__(self, cores: list[Tensor], slots: int) -> None:
        self.cores = cores
        self.height = cores[0].size(1) * cores[0].size(2)
        if len(cores) == 2:
            self.height *= cores[1].size(2)
        self.width = cores[-1].size(3)
        self.count = cores[0].size(0) * (cores[1].size(0) if len(cores) == 2 else 1)
        few = self.count <= _KEYS_A_ROW * slots
        fits = self.count * self.height * self.width <= _LARGEST
        self.by_slot = len(cores) == 2 and not (few and fits)

    def matrices(self, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """All matrices, flat, and which of them each slot has; ``None`` if its own.

        Args:
            keys: Digits of each slot in this half, as one number, int32.
        """
        if len(self.cores) == 1:
            return self.cores[0].flatten(1), keys
        first, second = (self._first, self._second)
        if self.by_slot:
            own, other = self._digits(keys)
            out = first.new_empty(keys.size(0), first.size(1) * second.size(2))
            multiply(first, second, own, other, None, keys.size(0), out)
            return out, None
        product = first.flatten(0, 1) @ second.transpose(0, 1).flatten(1)
        p, high, _ = first.shape
        product = product.view(p, high, second.size(0), -1).transpose(1, 2)
        return product.reshape(self.count, -1), keys

    def gradients(self, grad: Tensor, keys: Tensor, deterministic: bool) -> list[Tensor]:
        """Gradients to the cores, of those to all matrices."""
        if len(self.cores) == 1:
            return [grad.view_as(self.cores[0])]
        first, second = (self._first, self._second)
        p, high, rank = first.shape
        if not self.by_slot:
            # (p, p', high, width) to two products of all pairs
            pairs = grad.view(p, second.size(0), high, -1).transpose(1, 2)
            pairs = pairs.reshape(p * high, -1)
            of_first = pairs @ second.transpose(0, 1).flatten(1).t()
            of_second = first.flatten(0, 1).t() @ pairs
            of_second = of_second.view(rank, second.size(0), -1).transpose(0, 1)
            found = [of_first, of_second]
        else:
            found = list(product_gradients(
                first, second, *self._digits(keys), grad.view(-1, high, second.size(2)), None,
                deterministic,
            ))  # fmt: skip
        return [f.contiguous().view(core.shape) for f, core in zip(found, self.cores, strict=True)]

    @property
    def _first(self) -> Tensor:
        return self.cores[0].flatten(1, 2)

    @property
    def _second(self) -> Tensor:
        return self.cores[1].flatten(2)

    def _digits(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        behind = self.cores[1].size(0)
        return keys // behind, keys % behind


def product_gradients(
    a: Tensor,
    b: Tensor,
    of_a: Tensor | None,
    of_b: Tensor | None,
    grad: Tensor,
    place: Tensor | None,
    deterministic: bool,
    sorted_by_b: bool = False,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`multiply` to both tables.

    Args:
        a: See :func:`multiply`, and so the arguments up to ``of_b``.
        b: See ``a``.
        of_a: See ``a``.
        of_b: See ``a``.
        grad: Shape ``(T, M, N)``, any float dtype.
        place: Matrix of ``grad`` of each slot, int32; its number if ``None``.
        deterministic: Whether sums are to be the same bits every time.
        sorted_by_b: Whether ``of_b`` never falls: then no atomics are needed for ``b``.
        weights: What the product of each slot was multiplied by, float32; 1 if ``None``.
    """
    of_a_sums = _by_key(
        Factor(grad, place, True), Factor(b, of_b, True), weights, of_a, a.size(0),
        deterministic, False,
    )  # fmt: skip
    of_b_sums = _by_key(
        Factor(a, of_a), Factor(grad, place), weights, of_b, b.size(0),
        deterministic, sorted_by_b,
    )  # fmt: skip
    return of_a_sums, of_b_sums


def _by_key(
    x: Factor,
    y: Factor,
    weights: Tensor | None,
    key: Tensor | None,
    count: int,
    deterministic: bool,
    is_sorted: bool,
) -> Tensor:
    """Sums of the outer products of the slots of each key, shape ``(count, I, J)``."""
    if key is None:  # a slot each
        rowptr = torch.arange(count + 1, device=x.data.device)
        return sum_segments(x, y, rowptr, count, weights)
    slots = key.size(0)
    if not is_sorted:
        if not deterministic:
            out = torch.zeros(count, x.count, y.count, device=x.data.device, dtype=torch.float32)
            add_by_atomics(x, y, key, slots, out, weights)
            return out
        key, order = sort_keys(key, count)
        for factor in (x, y):
            factor.index = order if factor.index is None else factor.index[order.long()]
        weights = None if weights is None else weights[order.long()]
    rowptr = torch.searchsorted(key, torch.arange(count + 1, dtype=key.dtype, device=key.device))
    return sum_segments(x, y, rowptr, slots, weights)


def sort_keys(keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Keys below ``count`` in order, and which slot each was: int32, those of a key in order."""
    small = keys.short() if count < 2**15 else keys  # half the passes of a radix sort
    found, order = small.sort(stable=True)
    return found.to(keys.dtype), order.int()
