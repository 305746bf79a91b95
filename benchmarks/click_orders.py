"""Orders of categories: at random, by frequency, and by what they occur with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_gnncompress.data import TableBatch
from lit_gnncompress.embedding import NodeOrder
from lit_gnncompress.embedding.cooccurrence import cooccurrence_order, frequency_order

Order = Literal["none", "frequency", "cooccurrence", "clicked", "spectral"]
_WIDTH = 16  # of the vectors of a spectral order
_STEPS = 15  # of a power iteration: enough to tell the sides of a cut


def make_order(
    order: Order, batch: TableBatch, field: int, num_embeddings: Sequence[int],
    rows: Sequence[int], seed: int,
) -> NodeOrder:  # fmt: skip
    """Where the categories of a field lie.

    Args:
        order: ``"none"``: as they are numbered; ``"frequency"``: the most frequent first;
            ``"cooccurrence"``: those together that occur with the same categories of other fields;
            ``"clicked"``: the same among clicked rows alone, which is
            ``Tensorize(order="cooccurrence")``; ``"spectral"``: likewise, see
            :func:`spectral_order`.
        batch: Rows to train on.
        field: The field.
        num_embeddings: Categories of each field.
        rows: Factors of the places.
        seed: Seed of cuts.
    """
    number = num_embeddings[field]
    if order == "none":
        return NodeOrder(tuple(rows), torch.arange(number), "none")
    if order == "frequency":
        return frequency_order(batch.sparse[:, field], number, rows)
    if order == "cooccurrence":
        return cooccurrence_order(batch.sparse, field, number, rows, seed=seed, progress=False)
    clicked = batch.sparse[batch.label > 0]
    if order == "clicked":
        return cooccurrence_order(clicked, field, number, rows, seed=seed, progress=False)
    return spectral_order(clicked, field, num_embeddings, rows, seed)


def spectral_order(
    categories: Tensor, field: int, num_embeddings: Sequence[int], rows: Sequence[int], seed: int
) -> NodeOrder:
    """Halves categories again and again, by the main direction of their vectors.

    The vectors are singular ones of the counts of categories with those of all other fields, each
    count divided by the root of the product of its row's and its column's sum. Categories that
    occur nowhere have vectors of zeros.

    Args:
        categories: Rows to look at, int64 of shape ``(n, F)``.
        field: The field to order.
        num_embeddings: Categories of each field.
        rows: Factors of the places.
        seed: Seed of all that is drawn.
    """
    random = np.random.default_rng(seed)
    vectors = _vectors(categories.numpy(), field, num_embeddings, random)
    place = np.empty(len(vectors), np.int64)
    place[_halved(vectors, random.permutation(len(vectors)), random)] = np.arange(len(vectors))
    return NodeOrder(tuple(rows), torch.from_numpy(place), "spectral")


def _vectors(
    categories: NDArray[np.int64], field: int, sizes: Sequence[int], random: np.random.Generator
) -> NDArray[np.float64]:
    from scipy import sparse
    from scipy.sparse.linalg import svds

    blocks = []
    for other, size in enumerate(sizes):
        if other == field:
            continue
        ends = (categories[:, field], categories[:, other])
        counts = sparse.csr_matrix((np.ones(len(categories)), ends), (sizes[field], size))
        low, high = (
            sparse.diags(np.maximum(np.asarray(counts.sum(axis)).ravel(), 1) ** -0.5)
            for axis in (1, 0)
        )
        blocks.append(low @ counts @ high)
    together = sparse.hstack(blocks).tocsr()
    width = min(_WIDTH, min(together.shape) - 1)
    left, size_of, _ = svds(together, width, v0=random.standard_normal(min(together.shape)))
    vectors = left * size_of
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    # What occurs nowhere would be noise blown up.
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-9), 0.0)


def _halved(
    vectors: NDArray[np.float64], members: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    if len(members) <= 2:
        return members
    own = vectors[members] - vectors[members].mean(axis=0)
    direction = random.standard_normal(own.shape[1])
    for _ in range(_STEPS):
        direction = own.T @ (own @ direction)
        direction /= np.linalg.norm(direction) + 1e-12
    members = members[np.argsort(own @ direction, kind="stable")]
    half = len(members) // 2
    sides = (members[:half], members[half:])
    return np.concatenate([_halved(vectors, side, random) for side in sides])
