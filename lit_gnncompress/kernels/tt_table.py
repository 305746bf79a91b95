"""All rows of a tensor train at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_gnncompress.kernels.tt_lookup import check_cores, tt_lookup


def tt_table(cores: Sequence[Tensor], num_embeddings: int | None = None) -> Tensor:
    """The table whose tensor train is ``cores``.

    A matrix product for each core but the first; on a CPU, other than in float64, the rows come
    from :func:`lit_gnncompress.kernels.tt_lookup`, which makes no second table to put columns into
    order and is quicker. Differentiable in ``cores``, by that operation once. Autocast changes
    nothing.

    Args:
        cores: See :func:`lit_gnncompress.kernels.tt_lookup`.
        num_embeddings: Number of rows, from the first; all ``prod(p)`` if ``None``.

    Returns:
        Shape ``(num_embeddings, prod(q))``, dtype of the cores.

    Raises:
        ValueError: Cores that do not fit each other, or more rows than they have.
    """
    check_cores(cores)
    capacity = math.prod([core.size(0) for core in cores])
    rows = capacity if num_embeddings is None else num_embeddings
    if not 0 <= rows <= capacity:
        raise ValueError(
            f"num_embeddings={rows} must lie in [0, {capacity}]: the cores have "
            f"{' × '.join(str(core.size(0)) for core in cores)} rows."
        )
    if cores[0].device.type == "cpu" and cores[0].dtype != torch.float64:
        return tt_lookup(torch.arange(rows), cores)
    # Only the slices of the first core that have rows among them.
    first = -(-rows * cores[0].size(0) // capacity)
    with torch.autocast(cores[0].device.type, enabled=False):
        right = cores[-1].flatten(2)
        for core in cores[-2:0:-1]:
            right = _join(core, right)
        table = _join(cores[0][:first], right)
    return table[:rows].squeeze(1)


def _join(core: Tensor, right: Tensor) -> Tensor:
    """Slices of a core ``(p, r, q, s)`` times those of all behind it, ``(P, s, n)``."""
    p, r, q, s = core.shape
    count, _, n = right.shape
    product = core.reshape(p * r * q, s) @ right.transpose(0, 1).reshape(s, count * n)
    product = product.view(p, r, q, count, n).permute(0, 3, 1, 2, 4)
    return product.reshape(p * count, r, q * n)
