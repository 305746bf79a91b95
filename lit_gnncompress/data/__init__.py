"""Node-classification graphs by name, their splits, and the data module that serves them."""

from lit_gnncompress.data.catalog import available_graphs, load_graph
from lit_gnncompress.data.digits import digits_graph
from lit_gnncompress.data.features import normalize_rows
from lit_gnncompress.data.graph_data_module import GraphDataModule
from lit_gnncompress.data.splits import apply_split, random_split

__all__ = [
    "GraphDataModule",
    "apply_split",
    "available_graphs",
    "digits_graph",
    "load_graph",
    "normalize_rows",
    "random_split",
]
