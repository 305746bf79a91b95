"""New nodes in the free places of an order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lit_gnncompress.embedding.adjacency import Adjacency
from lit_gnncompress.embedding.graph_hash import check_graph

if TYPE_CHECKING:
    from lit_gnncompress.embedding.node_order import NodeOrder


def places_of_new(
    order: NodeOrder, edge_index: Tensor, num_new: int, edge_weight: Tensor | None = None
) -> Tensor:
    """Free places for new nodes, near their neighbours.

    From the coarsest level on, a node goes to the part that most of its neighbours are in, of those
    with a free place; without such neighbours to the one with the most free places. Nodes are
    placed one after the other, those whose neighbours are all new when one of them has a place.

    Args:
        order: The order of the known nodes.
        edge_index: See :meth:`NodeOrder.assign`.
        num_new: Number of new nodes.
        edge_weight: See :meth:`NodeOrder.assign`.

    Returns:
        Place of each new node, int64, shape ``(num_new,)``.

    Raises:
        ValueError: See :meth:`NodeOrder.assign`.
        IndexError: An edge of a node that there is not.
    """
    from lit_gnncompress.embedding.new_node_loops import place_new

    if not isinstance(num_new, int) or num_new < 0:
        raise ValueError(f"num_new={num_new} must be a whole number from 0 on.")
    free = order.capacity - order.num_nodes
    if num_new > free:
        parts = math.prod(order.rows[:-1])
        size = -(-(order.num_nodes + num_new) // parts)
        raise ValueError(
            f"num_new={num_new:,} nodes want places, {free:,} are free in rows={order.rows}: order "
            f"all nodes anew, for instance with rows={(*order.rows[:-1], -(-size * 21 // 20))}."
        )
    num_nodes = order.num_nodes + num_new
    check_graph(edge_index, num_nodes, edge_weight)
    if num_new == 0:
        return order.place.new_empty(0)
    fresh = (edge_index >= order.num_nodes).any(0)
    weight = None if edge_weight is None else edge_weight[fresh]
    graph = Adjacency.of(edge_index[:, fresh], num_nodes, weight)
    place = np.concatenate([order.place.cpu().numpy(), np.full(num_new, -1)])
    spans = np.array([math.prod(order.rows[level:]) for level in range(len(order.rows) + 1)])
    taken = np.zeros(order.capacity, np.bool_)
    taken[place[: order.num_nodes]] = True
    room = [(~taken).reshape(-1, span).sum(1) for span in spans[1:]]
    first = np.cumsum([0, *map(len, room)])[:-1]
    place_new(
        graph.start, graph.neighbor, graph.weight, spans, first, np.concatenate(room), place,
        order.num_nodes,
    )  # fmt: skip
    return torch.from_numpy(place[order.num_nodes :]).to(order.place.device)
