"""Finished orders in a folder, found by what they were made of."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from lit_gnncompress.embedding.node_order import NodeOrder

_VERSION = 1  # of the algorithms: other orders come out of the same arguments


Key = tuple[str, dict[str, int], dict[str, tuple[int, ...]], str, str, int]


def cached(
    folder: str | Path, key: Key, make: Callable[[], dict[str, NodeOrder]]
) -> dict[str, NodeOrder]:
    """Orders out of a folder, or made and put there.

    Files that cannot be read, or hold another order, are made anew with a warning. So is told that
    orders cannot be put there: they took long to make.

    Args:
        folder: Made if it is not there; ``~`` is the user's.
        key: All that orders depend on: hash of the graph, nodes and factors of each type, and what
            JSON can hold besides.
        make: Makes an order for each type.
    """
    fingerprint, num_nodes, rows, *_ = key
    text = json.dumps([_VERSION, *key])
    name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    paths = {
        each: Path(folder).expanduser() / f"order-{name}-{place}.safetensors"
        for place, each in enumerate(num_nodes)
    }
    if all(path.exists() for path in paths.values()):
        try:
            found = {each: NodeOrder.load(path) for each, path in paths.items()}
            for each, order in found.items():
                is_of = (order.graph_hash, order.num_nodes, order.rows)
                if is_of != (fingerprint, num_nodes[each], rows[each]):
                    raise ValueError(f"{paths[each]} holds an order of something else.")
            return found
        except (ValueError, OSError) as error:
            warnings.warn(f"The order is made anew: {error}", stacklevel=3)
    made = make()
    try:
        for each, order in made.items():
            order.save(paths[each])
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"cache_dir={str(folder)!r}: the order cannot be kept there ({error}), so that the "
            f"next call makes it anew. Name a folder that can be written.",
            stacklevel=3,
        )
    return made
