"""The smallest size that features have without any loss: what a quantized size must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.quantization.degrees import DegreeBuckets


def lossless_bytes(x: Tensor) -> tuple[int, str]:
    """Bytes of the smallest exact representation of ``x``, and its name.

    Tried are dense fp32, CSR in fp32, and, where the nonzeros of each row are all equal (binary
    features, row-normalised or not), one bit an entry and CSR without values. Columns take 16 bits
    up to 65,536 of them, row pointers 32; a row's value takes a byte if it is one over a count.

    Args:
        x: Features, shape ``(N, F)``.
    """
    rows, columns = x.shape
    sizes = {"dense fp32": 4 * rows * columns}
    nonzero = x != 0
    csr = int(nonzero.sum()) * (2 if columns <= 2**16 else 4) + 4 * (rows + 1)
    sizes["CSR fp32"] = csr + 4 * int(nonzero.sum())
    row_value = _row_value(x, nonzero)
    if row_value is not None:
        value_bytes = rows * _value_bytes(row_value)
        sizes["1 bit"] = rows * -(-columns // 8) + value_bytes
        sizes["binary CSR"] = csr + value_bytes
    name = min(sizes, key=sizes.__getitem__)
    return sizes[name], name


def lossless_by_bucket(x: Tensor, buckets: DegreeBuckets | None) -> tuple[int, ...]:
    """Bytes of the smallest exact representation of the rows of each bucket."""
    if buckets is None:
        return (lossless_bytes(x)[0],)
    return tuple(lossless_bytes(x[buckets.index == b])[0] for b in range(buckets.num_buckets))


def _row_value(x: Tensor, nonzero: Tensor) -> Tensor | None:
    """The one value of each row's nonzeros; ``None`` where some row has several."""
    if x.numel() == 0:
        return None
    value = torch.where(nonzero.any(1), x.gather(1, nonzero.int().argmax(1, True)).squeeze(1), 0)
    same = (x == value.unsqueeze(1)) | ~nonzero
    return value if bool(same.all()) else None


def _value_bytes(value: Tensor) -> int:
    """Bytes to store a row's value in: 0, 1 or 4."""
    used = value[value != 0]
    if used.numel() == 0 or bool((used == used[0]).all()):
        return 0
    counts = (1 / used).round()
    return 1 if bool(((counts >= 1) & (counts <= 255) & (1 / counts == used)).all()) else 4
