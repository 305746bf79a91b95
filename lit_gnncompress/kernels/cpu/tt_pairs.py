"""Products of the slices of two neighbouring cores, a pair of digits at a time, and gradients.

One core of a pair is *inner*: its shape is ``(P, R, Q, S)`` and it meets the other half of the
tensor train in rank ``R``. The other is *outer*, ``(p, S, q)``: the first core or the last. The
product of two slices, of shape ``(Q, q, R)``, is a tile::

    tile[j, k, r] = Σ_s inner[r, j, s] · outer[s, k]

Ranks are filled up to whole vectors. Pairs are visited in the order of their keys, ``i_inner * p +
i_outer``: those that follow each other share their inner slice, and what is made of it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.tt_tiles import product


class Pair(NamedTuple):
    """Two cores as kernels read them, or one.

    Attributes:
        inner: float32, shape ``(P, R, Q, S)``, contiguous; of one core ``(P, R, Q, 1)``.
        outer: float32, shape ``(p, S, q)``, contiguous; of one core ones of shape ``(1, 1, 1)``.
    """

    inner: Tensor
    outer: Tensor

    @property
    def num_pairs(self) -> int:
        """Pairs of digits."""
        return self.inner.size(0) * self.outer.size(0)

    @property
    def rank(self) -> int:
        """Rank between the halves."""
        return self.inner.size(1)

    @property
    def width(self) -> int:
        """Columns of the half."""
        return self.inner.size(2) * self.outer.size(2)


def right_pair(cores: list[Tensor]) -> Pair:
    """The half at the end."""
    if len(cores) == 1:
        return Pair(cores[0], cores[0].new_ones(1, 1, 1))
    return Pair(cores[0], cores[1].squeeze(3))


def left_pair(cores: list[Tensor]) -> Pair:
    """The half at the beginning, mirrored."""
    inner = cores[-1].transpose(1, 3).contiguous()
    if len(cores) == 1:
        return Pair(inner, inner.new_ones(1, 1, 1))
    return Pair(inner, cores[0].squeeze(1).transpose(1, 2).contiguous())


def outer_by_column(pair: Pair, outer_rank: int) -> Tensor:
    """The outer core as ``(p, q, S)``, ``S`` filled up to ``outer_rank``, at least."""
    return filled_up(pair.outer.transpose(1, 2), outer_rank).contiguous()


def filled_up(tensor: Tensor, columns: int) -> Tensor:
    """With zeros, to as many columns at least; no copy where there are enough."""
    missing = columns - tensor.size(-1)
    return F.pad(tensor, (0, missing)) if missing > 0 else tensor


class InnerSums(NamedTuple):
    """Gradients of the slices of the inner core, which chunks of sorted pairs take in turn.

    A slice belongs to the chunk that comes to it first; the chunks that begin in the middle of it
    have memory of their own for their share.

    Attributes:
        slices: float32, shape ``(P, Q, R, S)``, ``S`` filled up; of one core ``(P, Q, R)``, ``R``
            filled up.
        edges: The same of the first slice of each chunk.
        edge_slices: Which slice that is, int64; -1 of chunks without pairs.
    """

    slices: Tensor
    edges: Tensor
    edge_slices: Tensor

    @classmethod
    def of(cls, pair: Pair, chunks: int, rank: int, outer_rank: int) -> InnerSums:
        """Zeros.

        Args:
            pair: The cores.
            chunks: Number of chunks.
            rank: ``R``, filled up.
            outer_rank: ``S``, filled up; 0 if there is one core.
        """
        count, own, width, _ = pair.inner.shape
        shape = (width, own, outer_rank) if outer_rank else (width, rank)
        return cls(
            torch.zeros(count, *shape, dtype=torch.float32),
            torch.zeros(chunks, *shape, dtype=torch.float32),
            torch.full((chunks,), -1),
        )

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What kernels take."""
        return self.slices.numpy(), self.edges.numpy(), self.edge_slices.numpy()

    def total(self, pair: Pair) -> Tensor:
        """The gradient, shape of ``pair.inner``."""
        for edge, i in zip(self.edges, self.edge_slices.tolist(), strict=True):
            if i >= 0:
                self.slices[i] += edge
        _, own, _, behind = pair.inner.shape
        if self.slices.dim() == 3:
            return self.slices[..., :own].transpose(1, 2).unsqueeze(3)
        return self.slices[..., :behind].transpose(1, 2)


@njit(cache=True, nogil=True)
def pack_inner(inner, i, rank, by_s, by_s_at, by_r, by_r_at, outer_rank):
    """A slice of the inner core in the two orders that products need.

    Args:
        inner: As of :class:`Pair`.
        i: Which slice.
        rank: ``R``, filled up.
        by_s: Flat; gets ``[j, s, r]``.
        by_s_at: Where it begins.
        by_r: Flat; gets ``[j, r, s]``, if there is a rank to the outer core.
        by_r_at: Where it begins.
        outer_rank: ``S``, filled up; 0 without an outer core, or where that order is not needed.
    """
    _, R, Q, S = inner.shape
    for r in range(R):
        for j in range(Q):
            for s in range(S):
                value = inner[i, r, j, s]
                by_s[by_s_at + (j * S + s) * rank + r] = value
                if outer_rank:
                    by_r[by_r_at + (j * R + r) * outer_rank + s] = value


@njit(cache=True, nogil=True, inline="always")
def multiply_pair(by_s, outer, inner_shape, tile, tile_j, tile_k, width, RANK):
    """A tile, of what :func:`pack_inner` gave.

    Args:
        by_s: Address.
        outer: Address of the outer slice.
        inner_shape: That of the inner core.
        tile: Address.
        tile_j: Floats between two ``j``.
        tile_k: Floats between two ``k``.
        width: ``q``.
        RANK: ``R``, filled up, a literal.
    """
    for j in range(inner_shape[2]):
        S = inner_shape[3]
        product(
            outer, width, by_s + 4 * j * S * RANK, RANK, S,
            tile + 4 * j * tile_j, tile_k, width, 1, RANK, False,
        )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def add_pair_gradient(
    tile, by_r, outer_by_k, inner_shape, width, inner_grad, outer_grad, RANK, OUTER_RANK
):
    """Adds the gradients to both slices of that to a tile.

    Args:
        tile: Address of the gradient, ``[j, k, r]``.
        by_r: Address, of :func:`pack_inner`.
        outer_by_k: Address of the outer slice as ``[k, s]``.
        inner_shape: That of the inner core.
        width: ``q``.
        inner_grad: Address, ``[j, r, s]``.
        outer_grad: Address, ``[k, s]``.
        RANK: ``R``, filled up, a literal.
        OUTER_RANK: ``S``, filled up, a literal.
    """
    for j in range(inner_shape[2]):
        R = inner_shape[1]
        rows, step = tile + 4 * j * width * RANK, 4 * j * R * OUTER_RANK
        product(
            rows, 1, by_r + step, OUTER_RANK, R,
            outer_grad, OUTER_RANK, width, RANK, OUTER_RANK, True,
        )  # fmt: skip
        product(
            rows, RANK, outer_by_k, OUTER_RANK, width,
            inner_grad + step, OUTER_RANK, R, 1, OUTER_RANK, True,
        )  # fmt: skip
