"""Operations on packed rows, each the same on CPU and GPU.

One operation is one file here, which checks its arguments, tells torch of it (autograd, fake
tensors, ``torch.compile``) and documents it; and one file of the same name in each of

- ``reference/``: plain torch, slow: what the operation means, and what tests compare with;
- ``cpu/``: numba;
- ``cuda/``: Triton.

How codes lie in memory is told in ``layout`` and ``sparse_layout``. Names are imported where they
are first used; numba and Triton where an operation is first called.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_gnncompress.kernels.activate_pack import activate_pack
    from lit_gnncompress.kernels.adjacency import Adjacency
    from lit_gnncompress.kernels.aggregate import aggregate
    from lit_gnncompress.kernels.aggregate_pack import aggregate_pack
    from lit_gnncompress.kernels.attention_aggregate import attention_aggregate
    from lit_gnncompress.kernels.gather_dequantize import gather_dequantize
    from lit_gnncompress.kernels.pack_bits import pack_bits
    from lit_gnncompress.kernels.packed_aggregate import packed_aggregate
    from lit_gnncompress.kernels.packed_attention_aggregate import packed_attention_aggregate
    from lit_gnncompress.kernels.packed_linear import packed_linear
    from lit_gnncompress.kernels.packed_linear_int8 import packed_linear_int8
    from lit_gnncompress.kernels.quantize_pack import quantize_pack
    from lit_gnncompress.kernels.sort_edges import sort_edges
    from lit_gnncompress.kernels.sparse_aggregate import sparse_aggregate
    from lit_gnncompress.kernels.sparse_gather_dequantize import sparse_gather_dequantize
    from lit_gnncompress.kernels.sparse_linear import sparse_linear
    from lit_gnncompress.kernels.tt_embedding_bag import tt_embedding_bag
    from lit_gnncompress.kernels.tt_lookup import tt_lookup
    from lit_gnncompress.kernels.tt_table import tt_table
    from lit_gnncompress.kernels.unpack_bits import unpack_bits

__all__ = [
    "Adjacency",
    "activate_pack",
    "aggregate",
    "aggregate_pack",
    "attention_aggregate",
    "gather_dequantize",
    "pack_bits",
    "packed_aggregate",
    "packed_attention_aggregate",
    "packed_linear",
    "packed_linear_int8",
    "quantize_pack",
    "sort_edges",
    "sparse_aggregate",
    "sparse_gather_dequantize",
    "sparse_linear",
    "tt_embedding_bag",
    "tt_lookup",
    "tt_table",
    "unpack_bits",
]


class _Kernels(ModuleType):
    """Keeps the names of operations for the operations: their files have the same names."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Kernels


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{name.lower()}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
