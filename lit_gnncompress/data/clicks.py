"""Clicks drawn from a hidden model, for trying things out without files."""

from __future__ import annotations

import numpy as np

from lit_gnncompress.data.table_rows import TableRows

_WIDTH = 4  # of the hidden vectors


def clicks(
    num_rows: int = 20_000,
    num_dense: int = 13,
    num_embeddings: tuple[int, ...] = (1000, 500, 200, 100, 50, 20, *([10] * 10), *([4] * 10)),
    seed: int = 0,
) -> TableRows:
    """Rows whose labels depend on numbers, on categories, and on products of hidden vectors.

    Few categories of a field are frequent. The global random state is neither read nor moved.

    Args:
        num_rows: Number of rows.
        num_dense: Numbers in a row, normally distributed.
        num_embeddings: Categories of each field.
        seed: Seed of the draw.

    Returns:
        The rows, about a third of them clicks.

    Raises:
        ValueError: If a number is below 1, or ``num_dense`` below 0.
    """
    if num_rows < 1 or num_dense < 0 or not num_embeddings or min(num_embeddings) < 1:
        raise ValueError(
            f"num_rows={num_rows} and num_embeddings={num_embeddings} must be at least 1, "
            f"num_dense={num_dense} at least 0"
        )
    draw = np.random.default_rng(seed)
    dense = draw.standard_normal((num_rows, num_dense), np.float32)
    sizes = np.array(num_embeddings)
    # The square makes low numbers frequent.
    sparse = (sizes * draw.random((num_rows, len(sizes))) ** 2).astype(np.int32)
    score = dense @ draw.standard_normal(num_dense, np.float32) / max(num_dense, 1) ** 0.5
    hidden = np.zeros((num_rows, _WIDTH), np.float32)
    for field, size in enumerate(num_embeddings):
        score += draw.standard_normal(size, np.float32)[sparse[:, field]] / len(sizes) ** 0.5
        hidden += draw.standard_normal((size, _WIDTH), np.float32)[sparse[:, field]]
    score += np.square(hidden / len(sizes) ** 0.5).mean(axis=1) - 1
    likely = 1 / (1 + np.exp(-2 * score + 1))
    label = (draw.random(num_rows) < likely).astype(np.uint8)
    return TableRows(dense, sparse, label, tuple(num_embeddings), num_rows)
