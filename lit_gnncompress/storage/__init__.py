"""Bytes: how features lie in memory and in files, and how they are counted."""

from lit_gnncompress.storage import packed_operations  # noqa: F401  adds them to PackedTensor
from lit_gnncompress.storage.ledger import Ledger, LedgerRow, ledger_of
from lit_gnncompress.storage.lossless import lossless_bytes
from lit_gnncompress.storage.pack import pack
from lit_gnncompress.storage.packed_tensor import PackedTensor

__all__ = [
    "Ledger",
    "LedgerRow",
    "PackedTensor",
    "ledger_of",
    "lossless_bytes",
    "pack",
]
