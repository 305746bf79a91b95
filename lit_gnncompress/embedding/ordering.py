"""Nodes in the order of a graph: neighbours share the leading digits of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, overload

import torch
from torch import Tensor

from lit_gnncompress.embedding.node_order import NodeOrder
from lit_gnncompress.embedding.order_cache import cached
from lit_gnncompress.embedding.order_methods import Method, Within, places
from lit_gnncompress.embedding.typed_graphs import EdgeType, TypedGraph

_WITHOUT_GRAPH = ("random", "none")


@overload
def hierarchical_order(
    edge_index: Tensor,
    num_nodes: int,
    rows: Sequence[int],
    *,
    edge_weight: Tensor | None = ...,
    method: Method = ...,
    within: Within = ...,
    seed: int = ...,
    cache_dir: str | Path | None = ...,
    progress: bool = ...,
    num_workers: int | None = ...,
) -> NodeOrder: ...


@overload
def hierarchical_order(
    edge_index: Mapping[EdgeType, Tensor],
    num_nodes: Mapping[str, int],
    rows: Mapping[str, Sequence[int]],
    *,
    edge_weight: Mapping[EdgeType, Tensor] | None = ...,
    method: Method = ...,
    within: Within = ...,
    seed: int = ...,
    cache_dir: str | Path | None = ...,
    progress: bool = ...,
    num_workers: int | None = ...,
) -> dict[str, NodeOrder]: ...


def hierarchical_order(
    edge_index: Any,
    num_nodes: Any,
    rows: Any,
    *,
    edge_weight: Any = None,
    method: Method = "metis",
    within: Within = "shuffle",
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    num_workers: int | None = None,
) -> NodeOrder | dict[str, NodeOrder]:
    """Orders the nodes of a graph so that neighbours share leading digits of their rows.

    The graph is cut into ``p_1`` parts by METIS (`Karypis and Kumar 1998
    <https://doi.org/10.1137/S1064827595287997>`_), each part into ``p_2``, and so on; each part of
    the last level has ``p_d`` places. Have a few percent more places than nodes: with none to
    spare, nodes must move out of parts that are too full, where they have fewer neighbours. Such an
    order is an idea of `Nimble GNN Embedding <https://doi.org/10.1145/3534678.3539423>`_; there
    parts may end anywhere between two digits, here they never do.

    Graphs of several types of nodes, bipartite ones among them, come as dictionaries. All types are
    cut together, so that their factors but the last must be equal, as
    :func:`~lit_gnncompress.embedding.typed_rows` makes them: users and items that belong together
    are in parts of the same number, each type in a table of its own. A single table of users and
    items, where item ``i`` is row ``num_users + i``, is ordered as a graph of one type.

    Args:
        edge_index: Edges, int64 or int32 of shape ``(2, E)``, in any order, in one direction or in
            both; loops mean nothing. Or a tensor for each type of edges, ``(from, relation, to)``.
        num_nodes: Number of nodes, or one for each type of nodes.
        rows: Factors ``p_1 … p_d`` of the rows of the table, or those for each type of nodes.
        edge_weight: Weight of each edge, at least 0, shape ``(E,)``, or one tensor for each type of
            edges. Those between the same two nodes are added up. If ``None``, edges count once,
            however often they occur.
        method: Besides ``"metis"``, to compare with: ``"flat_metis"``, one cut into as many parts,
            laid end to end; ``"community"``, Louvain's communities end to end, those that belong to
            a larger one together; ``"degree"``, the largest first; ``"random"``, anywhere in the
            table; ``"none"``, as they are.
        within: Order inside of parts or communities: ``"shuffle"``, in random places, because
            numbers of nodes often tell about their classes, which would look like a good order and
            not be one in deployment; ``"degree"``, the largest first; ``"natural"``, as they are.
        seed: Seed of METIS and of all that is shuffled. The same seed gives the same order, however
            many processes work, with the same C library.
        cache_dir: Folder where orders are kept. An order of the same graph, with its edges in any
            order, and the same arguments is read from it. Nothing is kept if ``None``, nor orders
            that need no graph.
        progress: Whether to show a progress bar, on terminals only.
        num_workers: Processes that cut parts. If ``None``, one for each core, and none but this
            one for small graphs, which is quicker.

    Returns:
        The order, or one for each type of nodes. Its ``graph_hash`` tells which graph it is for,
        except for orders that need none.

    Raises:
        ValueError: More nodes than rows, factors that differ between types, edges or weights that
            are no such, or an unknown method.
        IndexError: An edge of a node that there is not.
        ImportError: pymetis is not installed.

    Example:
        >>> order = hierarchical_order(data.edge_index, data.num_nodes, rows=(125, 140, 141))
        >>> orders = hierarchical_order(
        ...     {("user", "chose", "item"): edge_index},
        ...     num_nodes={"user": 29_858, "item": 40_981},
        ...     rows={"user": (600, 6, 9), "item": (600, 6, 12)},
        ... )
        >>> orders["user"].parts(1)  # the part of orders["item"] with the same number is near
    """
    _check_choice("method", method, get_args(Method))
    _check_choice("within", within, get_args(Within))
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers={num_workers} must be 1 or more, or None.")
    if isinstance(edge_index, Mapping):
        graph = TypedGraph.joined(edge_index, num_nodes, rows, edge_weight)
    else:
        graph = TypedGraph.single(edge_index, num_nodes, rows, edge_weight)
    fingerprint = graph.fingerprint()

    def make() -> dict[str, NodeOrder]:
        found = places(graph, method, within, seed, progress, num_workers)
        known = None if method in _WITHOUT_GRAPH else fingerprint
        return {
            name: NodeOrder(graph.rows[name], torch.from_numpy(place), method, known)
            for name, place in found.items()
        }

    if cache_dir is None or method in _WITHOUT_GRAPH:
        orders = make()
    else:
        key = (fingerprint, graph.num_nodes, graph.rows, method, within, seed)
        orders = cached(cache_dir, key, make)
    return orders if isinstance(edge_index, Mapping) else orders[""]


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(choices)}.")
