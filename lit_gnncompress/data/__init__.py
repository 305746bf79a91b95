"""Graphs, interactions and clicks by name, their splits, and the data modules that serve them."""

from lit_gnncompress.data.catalog import available_graphs, load_graph
from lit_gnncompress.data.criteo import CriteoDataModule
from lit_gnncompress.data.digits import digits_graph
from lit_gnncompress.data.features import normalize_rows
from lit_gnncompress.data.graph_data_module import GraphDataModule
from lit_gnncompress.data.interactions import InteractionDataModule
from lit_gnncompress.data.interactions_files import available_interactions, load_interactions
from lit_gnncompress.data.libfm import LibFMDataModule
from lit_gnncompress.data.splits import apply_split, random_split, share_split
from lit_gnncompress.data.table_rows import TableBatch

__all__ = [
    "CriteoDataModule",
    "GraphDataModule",
    "InteractionDataModule",
    "LibFMDataModule",
    "TableBatch",
    "apply_split",
    "available_graphs",
    "available_interactions",
    "digits_graph",
    "load_graph",
    "load_interactions",
    "normalize_rows",
    "random_split",
    "share_split",
]
