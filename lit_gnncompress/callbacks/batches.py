"""Which nodes a batch holds, and what degrees they have in the whole graph."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from lit_gnncompress.kept import kept
from lit_gnncompress.quantization.context import GraphContext
from lit_gnncompress.quantization.degrees import in_degrees

_SAMPLED = ("n_id", "input_id", "batch_size")  # what PyG's loaders leave in a sampled batch


class BatchDegrees:
    """Publishes batches to the sites of a model.

    Args:
        degree_attr: Node attribute with the degree in the whole graph.

    Attributes:
        whole_graph: The graph that batches are sampled from, where it is known.
    """

    def __init__(self, degree_attr: str) -> None:
        self.degree_attr = degree_attr
        self.whole_graph: Any = None
        self._warned = False

    def publish(self, context: GraphContext, batch: Any) -> None:
        """Tells ``context`` about the graph in ``batch``, if it has one.

        Of several graphs it tells the numbers of nodes alone: their layers count degrees for
        themselves, as nothing says which graph they are called with.

        Raises:
            ValueError: A graph without nodes.
        """
        graphs = list(graphs_in(batch))
        counts = [_nodes(graph) for graph in graphs]
        if not graphs or None in counts:
            context.clear()
        elif not all(counts):
            raise ValueError("The batch's graph has no nodes: drop empty graphs from the data.")
        elif len(graphs) > 1:
            context.publish({f"{i}": count for i, count in enumerate(counts) if count})
        elif isinstance(graph := graphs[0], HeteroData):
            nodes = {node_type: graph[node_type].num_nodes for node_type in graph.node_types}
            context.publish(nodes, self._by_type(graph) if context.by_degree else None)
        else:
            degrees = self._degrees(context, graph) if context.by_degree else None
            context.publish(int(graph.num_nodes), degrees)

    def _degrees(self, context: GraphContext, graph: Data) -> Tensor | None:
        own = self._attribute(graph, graph.num_nodes)
        if own is not None:
            return own
        whole = self.whole_graph if isinstance(self.whole_graph, Data) else None
        if whole is not None and "n_id" in graph and are_rows(graph.n_id, whole.num_nodes):
            degrees = self.of_whole(whole)
            context.settle_splits(degrees)
            return degrees.to(graph.n_id.device)[graph.n_id]
        sampled = any(name in graph for name in _SAMPLED)
        if sampled or (whole is not None and graph.num_nodes < whole.num_nodes):
            self._warn()
            return None
        return self.counted(graph)

    def of_whole(self, graph: Data) -> Tensor:
        """Degrees of the nodes of a whole graph: its attribute, or in-degrees by its edges."""
        own = self._attribute(graph, graph.num_nodes)
        return self.counted(graph) if own is None else own

    def _by_type(self, graph: HeteroData) -> dict[str, Tensor] | None:
        degrees = {
            node_type: self._attribute(graph[node_type], graph[node_type].num_nodes)
            for node_type in graph.node_types
        }
        if all(of_type is not None for of_type in degrees.values()):
            return degrees  # type: ignore[return-value]
        if any(name in graph[t] for name in _SAMPLED for t in graph.node_types):
            self._warn()
        return None

    def _attribute(self, nodes: Any, num_nodes: int) -> Tensor | None:
        degrees = nodes[self.degree_attr] if self.degree_attr in nodes else None  # noqa: SIM401
        if not isinstance(degrees, Tensor) or degrees.shape != (num_nodes,):
            return None
        return None if degrees.dtype == torch.bool else degrees.long()

    def counted(self, graph: Data) -> Tensor:
        """In-degrees by the edges of ``graph``, counted once."""
        adjacency = graph.adj_t if "adj_t" in graph else graph.edge_index
        key = ("in-degrees", graph.num_nodes)
        return kept(adjacency, key, lambda: in_degrees(adjacency, graph.num_nodes))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"whole_graph": None}  # graphs are not part of a callback

    def _warn(self) -> None:
        if not self._warned:
            warnings.warn(
                f"The plan gives bits by degree, but a sampled batch has no node attribute "
                f"'{self.degree_attr}' and no 'n_id' to look it up by: degrees are counted within "
                f"the batch, where they are smaller. Store them before sampling: data."
                f"{self.degree_attr} = torch_geometric.utils.degree(edge_index[1]).long().",
                stacklevel=2,
            )
            self._warned = True


def are_rows(index: Tensor, count: int) -> bool:
    """Whether all numbers of rows, of which none is below 0, are below ``count``."""
    return not len(index) or int(index.max()) < count


def _nodes(graph: Data | HeteroData) -> int | None:
    """Number of nodes; ``None`` for a graph that does not say, as one of pairs of graphs."""
    if isinstance(graph, Data) and not graph.node_stores[0].can_infer_num_nodes:
        return None
    return graph.num_nodes


def graphs_in(batch: Any) -> Iterator[Data | HeteroData]:
    """Graphs in a batch, which may be nested in tuples, lists and dicts."""
    if isinstance(batch, (Data, HeteroData)):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from graphs_in(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from graphs_in(value)
