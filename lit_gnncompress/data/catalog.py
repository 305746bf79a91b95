"""Graphs by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from functools import partial

from torch_geometric.data import Data

from lit_gnncompress.data.digits import digits_graph
from lit_gnncompress.data.folders import Folders
from lit_gnncompress.data.open_graph_benchmark import load_ogb
from lit_gnncompress.data.pyg_datasets import load_pyg
from lit_gnncompress.data.structure import (
    load_facebook100,
    load_npz_structure,
    load_prone_dblp,
)

_FAMILIES = {
    "Planetoid": ("Cora", "CiteSeer", "PubMed"),
    "Amazon": ("Computers", "Photo"),
    "Coauthor": ("CS", "Physics"),
    "Heterophilous": (
        "Roman-empire", "Amazon-ratings", "Minesweeper", "Tolokers", "Questions",
    ),
}  # fmt: skip
# Three of these share their names with smaller Planetoid graphs, hence the prefix.
_CITATION_FULL = ("Cora", "Cora_ML", "CiteSeer", "DBLP", "PubMed")

_CATALOG: dict[str, Callable[[Folders], Data]] = {
    "digits": lambda folders: digits_graph(),
    **{
        name: partial(load_pyg, family, name)
        for family, names in _FAMILIES.items()
        for name in names
    },
    **{f"CitationFull-{name}": partial(load_pyg, "CitationFull", name) for name in _CITATION_FULL},
    "Reddit": partial(load_pyg, "Reddit", None),
    "ogbn-arxiv": partial(load_ogb, "ogbn-arxiv"),
    "ogbn-products": partial(load_ogb, "ogbn-products"),
    "Cornell5": partial(load_facebook100, "Cornell5"),
    "ProNE-DBLP": load_prone_dblp,
}

_STRUCTURES: dict[str, Callable[[Folders], Data | None]] = {
    name if family != "CitationFull" else f"CitationFull-{name}": partial(
        load_npz_structure, family, name
    )
    for family, names in (
        *((family, _FAMILIES[family]) for family in ("Amazon", "Coauthor")),
        ("CitationFull", _CITATION_FULL),
    )
    for name in names
}


def available_graphs() -> list[str]:
    """Names that ``load_graph`` knows, in the order of its table."""
    return list(_CATALOG)


def canonical_name(name: str) -> str:
    """The catalog's spelling of a name.

    Args:
        name: A name of ``available_graphs``, in any case.

    Returns:
        The name as ``available_graphs`` spells it.

    Raises:
        ValueError: If no graph has that name.
    """
    spelling = {known.lower(): known for known in _CATALOG}
    query = name.lower()
    if query in spelling:
        return spelling[query]
    near = [key for key in spelling if query and query in key]
    near += [key for key in difflib.get_close_matches(query, spelling) if key not in near]
    hint = f" Did you mean {' or '.join(repr(spelling[key]) for key in near)}?" if near else ""
    raise ValueError(f"No graph is named {name!r}.{hint} Known: {', '.join(_CATALOG)}")


def load_graph(
    name: str,
    root: str | os.PathLike[str] | None = None,
    processed_dir: str | os.PathLike[str] | None = None,
    features: bool = True,
) -> Data:
    """Load a graph by name as its source publishes it.

    | name | what | source |
    |---|---|---|
    | ``digits`` | 1,797 handwritten digits and their nearest neighbours; no download | \
scikit-learn (CC BY 4.0) |
    | ``Cora``, ``CiteSeer``, ``PubMed`` | citations, public split | kimiyoung/planetoid (MIT) |
    | ``Computers``, ``Photo``, ``CS``, ``Physics`` | co-purchases and co-authors, no split, \
binary features | shchur/gnn-benchmark (MIT) |
    | ``CitationFull-Cora``, ``-Cora_ML``, ``-CiteSeer``, ``-DBLP``, ``-PubMed`` | citations, no \
split, features made binary | abojchevski/graph2gauss (MIT) |
    | ``Roman-empire``, ``Amazon-ratings``, ``Minesweeper``, ``Tolokers``, ``Questions`` | 10 \
splits | yandex-research/heterophilous-graphs (MIT) |
    | ``Reddit`` | posts, public split | GraphSAGE, by way of data.dgl.ai (no licence stated) |
    | ``ogbn-arxiv`` (ODC-BY), ``ogbn-products`` (Amazon licence) | public split | \
ogb.stanford.edu, by way of the optional package ``ogb`` |
    | ``Cornell5`` | friendships, classified by gender, no features, no split | Facebook100, by \
way of CUAI/Non-Homophily-Large-Scale (no licence stated) |
    | ``ProNE-DBLP`` | citations, no features, no split | THUDM/ProNE (MIT) |

    Args:
        name: One of ``available_graphs``, in any case.
        root: Folder of raw files, laid out as PyG does, one folder a family
            (``Planetoid/Cora/raw/…``). Missing files are downloaded into it. ``None`` takes the
            environment variable ``GNNCOMPRESS_DATA``, and without it
            ``~/.cache/lit_gnncompress``.
        processed_dir: Folder of processed files, ``None`` for
            ``~/.cache/lit_gnncompress/processed``; ``root`` itself is never written to unless
            raw files are missing.
        features: Whether the graph has ``x``. Without, large ones are not even read where the
            raw file is at hand.

    Returns:
        A graph with ``x`` ``(num_nodes, num_features)`` float32 (where there are features, and
        they are wanted), ``edge_index`` ``(2, num_edges)`` int64, ``y`` ``(num_nodes,)`` int64
        (-1 where unknown) and the published masks, if any.

    Raises:
        ValueError: If no graph has that name.
        ModuleNotFoundError: If the package that reads the graph is not installed.
        OSError: If files are missing and cannot be downloaded, or cannot be written.
    """
    name, folders = canonical_name(name), Folders.resolve(root, processed_dir)
    if features:
        return _CATALOG[name](folders)
    data = _STRUCTURES[name](folders) if name in _STRUCTURES else None
    if data is None:
        data = _CATALOG[name](folders)
        data.num_nodes = data.num_nodes  # known by the features until now
        data.pop("x", None)
    return data
