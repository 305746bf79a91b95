"""Bytes: what is stored, and how it is counted."""

from lit_gnncompress.storage.ledger import Ledger, LedgerRow, ledger_of
from lit_gnncompress.storage.lossless import lossless_bytes

__all__ = ["Ledger", "LedgerRow", "ledger_of", "lossless_bytes"]
