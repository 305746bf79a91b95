"""Graph neural networks and recommenders made small, as Lightning callbacks.

Features and attention in 1 to 8 bits (SGQuant); embedding tables as tensor trains (TT-Rec, Nimble).

Names are imported where they are first used, so that ``import lit_gnncompress`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_gnncompress.callbacks import BitSearch
    from lit_gnncompress.compare import compare_by_seed
    from lit_gnncompress.embedding import (
        NodeOrder,
        PartitionEmbedding,
        TTEmbedding,
        hierarchical_order,
    )
    from lit_gnncompress.plan import BitPlan, Site
    from lit_gnncompress.quantization import (
        Quantization,
        Quantizer,
        find_sites,
        quantize_,
        remove_quantization,
    )
    from lit_gnncompress.results import Comparison
    from lit_gnncompress.storage import (
        Ledger,
        PackedFeatureStore,
        PackedTensor,
        ledger_of,
        load_compressed,
        open_features,
        pack,
        pack_file,
        save_compressed,
    )

__version__ = "0.1.0"

_HOMES = {
    "BitPlan": "plan",
    "BitSearch": "callbacks",
    "Comparison": "results",
    "Ledger": "storage",
    "NodeOrder": "embedding",
    "PackedFeatureStore": "storage",
    "PackedTensor": "storage",
    "PartitionEmbedding": "embedding",
    "Quantization": "quantization",
    "Quantizer": "quantization",
    "Site": "plan",
    "TTEmbedding": "embedding",
    "compare_by_seed": "compare",
    "find_sites": "quantization",
    "hierarchical_order": "embedding",
    "ledger_of": "storage",
    "load_compressed": "storage",
    "open_features": "storage",
    "pack": "storage",
    "pack_file": "storage",
    "quantize_": "quantization",
    "remove_quantization": "quantization",
    "save_compressed": "storage",
}

__all__ = [
    "BitPlan",
    "BitSearch",
    "Comparison",
    "Ledger",
    "NodeOrder",
    "PackedFeatureStore",
    "PackedTensor",
    "PartitionEmbedding",
    "Quantization",
    "Quantizer",
    "Site",
    "TTEmbedding",
    "compare_by_seed",
    "find_sites",
    "hierarchical_order",
    "ledger_of",
    "load_compressed",
    "open_features",
    "pack",
    "pack_file",
    "quantize_",
    "remove_quantization",
    "save_compressed",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
