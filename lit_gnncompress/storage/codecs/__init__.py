"""Codecs: how the packed rows of a degree bucket lie in memory."""

from lit_gnncompress.storage.codecs.base import Codec
from lit_gnncompress.storage.codecs.choose import choose_codec, encode
from lit_gnncompress.storage.codecs.dense import DenseCodec, FloatCodec
from lit_gnncompress.storage.codecs.sparse import GapCodec, SparseCodec

__all__ = [
    "Codec",
    "DenseCodec",
    "FloatCodec",
    "GapCodec",
    "SparseCodec",
    "choose_codec",
    "encode",
]
