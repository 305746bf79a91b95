"""Plain torch: the meaning of ``sparse_linear``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lit_gnncompress.kernels.reference.sparse_gather_dequantize import sparse_gather_dequantize


def sparse_linear(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    weight: Tensor,
    first: Tensor | None = None,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.sparse_linear`."""
    x = sparse_gather_dequantize(rowptr, columns, values, lo, scale, bits, width, None, first)
    return F.linear(x, weight)
