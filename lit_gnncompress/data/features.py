"""Row normalisation of node features."""

from __future__ import annotations

from torch import Tensor


def normalize_rows(x: Tensor) -> Tensor:
    """Divide every row by its sum, so that rows of non-negative features sum to one.

    A binary row with ``k`` ones becomes a row with ``k`` entries of exactly ``1 / k``: it is still
    one bit an entry and one scale a row. Rows without any feature stay zero. Features with
    negative entries (word vectors, standardised columns) come back as they are: their row sums
    mean nothing.

    Args:
        x: Node features, ``(num_nodes, num_features)``, floating point.

    Returns:
        A new tensor like ``x``, or ``x`` itself where it has a negative entry.
    """
    if x.numel() == 0 or x.min() < 0:
        return x
    total = x.sum(dim=-1, keepdim=True)
    return x / total.masked_fill(total == 0, 1)
