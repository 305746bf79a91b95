"""Plain torch: the meaning of ``sparse_gather_dequantize``."""

from __future__ import annotations

from torch import Tensor

from lit_gnncompress.kernels.reference.sparse_rows import stored_codes


def sparse_gather_dequantize(
    rowptr: Tensor,
    columns: Tensor,
    values: Tensor | None,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
    index: Tensor | None,
    first: Tensor | None,
) -> Tensor:
    """See :func:`lit_gnncompress.kernels.sparse_gather_dequantize`."""
    row, column, code = stored_codes(rowptr, columns, values, bits, first, index)
    rows = rowptr.size(0) - 1 if index is None else index.size(0)
    codes = scale.new_zeros(rows, width)
    codes[row, column] = code.float()
    if index is not None:
        lo = lo if lo.size(0) == 1 else lo[index]
        scale = scale if scale.size(0) == 1 else scale[index]
    return codes * scale.unsqueeze(1) + lo.unsqueeze(1)
