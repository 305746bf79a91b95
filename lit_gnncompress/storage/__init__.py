"""Bytes: how features and models lie in memory and in files, and how they are counted."""

from lit_gnncompress.storage import packed_operations  # noqa: F401  adds them to PackedTensor
from lit_gnncompress.storage.artifact import CompressedModel, load_compressed, save_compressed
from lit_gnncompress.storage.feature_file import load_features, open_features, save_features
from lit_gnncompress.storage.feature_store import PackedFeatureStore
from lit_gnncompress.storage.ledger import Ledger, LedgerRow, ledger_of
from lit_gnncompress.storage.lossless import lossless_bytes
from lit_gnncompress.storage.pack import pack
from lit_gnncompress.storage.packed_tensor import PackedTensor
from lit_gnncompress.storage.streaming import pack_file

__all__ = [
    "CompressedModel",
    "Ledger",
    "LedgerRow",
    "PackedFeatureStore",
    "PackedTensor",
    "ledger_of",
    "load_compressed",
    "load_features",
    "lossless_bytes",
    "open_features",
    "pack",
    "pack_file",
    "save_compressed",
    "save_features",
]
