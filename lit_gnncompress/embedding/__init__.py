"""Small tables: tensor trains, part vectors, and the order of their rows.

Names are imported where they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_gnncompress.embedding.bag import TTEmbeddingBag
    from lit_gnncompress.embedding.bag_collection import TTEmbeddingBagCollection
    from lit_gnncompress.embedding.choosing import choose_shape
    from lit_gnncompress.embedding.cooccurrence import cooccurrence_order, frequency_order
    from lit_gnncompress.embedding.cores import initial_cores
    from lit_gnncompress.embedding.decomposition import tt_svd
    from lit_gnncompress.embedding.factors import (
        TTShape,
        balanced_columns,
        balanced_rows,
        graph_rows,
        smallest_rows,
    )
    from lit_gnncompress.embedding.node_order import NodeOrder
    from lit_gnncompress.embedding.ordering import hierarchical_order
    from lit_gnncompress.embedding.partition import PartitionEmbedding
    from lit_gnncompress.embedding.quantized_cores import QuantizedTTEmbedding
    from lit_gnncompress.embedding.restored import restore_tables
    from lit_gnncompress.embedding.structural import structural_vectors
    from lit_gnncompress.embedding.tensor_train import TTEmbedding
    from lit_gnncompress.embedding.typed_graphs import typed_rows

_HOMES = {
    "NodeOrder": "node_order",
    "PartitionEmbedding": "partition",
    "QuantizedTTEmbedding": "quantized_cores",
    "TTEmbedding": "tensor_train",
    "TTEmbeddingBag": "bag",
    "TTEmbeddingBagCollection": "bag_collection",
    "TTShape": "factors",
    "balanced_columns": "factors",
    "balanced_rows": "factors",
    "choose_shape": "choosing",
    "cooccurrence_order": "cooccurrence",
    "frequency_order": "cooccurrence",
    "graph_rows": "factors",
    "hierarchical_order": "ordering",
    "initial_cores": "cores",
    "restore_tables": "restored",
    "smallest_rows": "factors",
    "structural_vectors": "structural",
    "tt_svd": "decomposition",
    "typed_rows": "typed_graphs",
}

__all__ = [
    "NodeOrder",
    "PartitionEmbedding",
    "QuantizedTTEmbedding",
    "TTEmbedding",
    "TTEmbeddingBag",
    "TTEmbeddingBagCollection",
    "TTShape",
    "balanced_columns",
    "balanced_rows",
    "choose_shape",
    "cooccurrence_order",
    "frequency_order",
    "graph_rows",
    "hierarchical_order",
    "initial_cores",
    "restore_tables",
    "smallest_rows",
    "structural_vectors",
    "tt_svd",
    "typed_rows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
