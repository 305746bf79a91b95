"""Graphs whose nodes have no features, and the edges of graphs whose features are not wanted."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
from scipy import sparse
from scipy.io import loadmat
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from lit_gnncompress.data.folders import Folders
from lit_gnncompress.files import replacing

_GITHUB = "https://github.com/{}/raw/master/data/{}"
_GENDER = 1  # column of Facebook100's table, where 0 is unknown


def load_facebook100(name: str, folders: Folders) -> Data:
    """Load a university's friendships of 2005 from Facebook100, classified by gender.

    Args:
        name: ``"Cornell5"``, or another file of the collection without its ``.mat``.
        folders: Where the raw file lives: ``raw / "Facebook100"``.

    Returns:
        ``edge_index`` int64, both ways, and ``y`` ``(num_nodes,)`` int64 in 0, 1, where -1 is
        unknown; no ``x``.

    Raises:
        OSError: If the file is missing and cannot be downloaded.
    """
    file = f"{name}.mat"
    source = _GITHUB.format("CUAI/Non-Homophily-Large-Scale", f"facebook100/{file}")
    content = loadmat(_raw_file(folders.raw / "Facebook100" / file, source))
    gender = torch.from_numpy(content["local_info"][:, _GENDER].astype(np.int64))
    return _graph(content["A"], gender - 1)


def load_prone_dblp(folders: Folders) -> Data:
    """Load the citations among DBLP's articles that `ProNE <https://doi.org/10.24963/ijcai.2019/594>`_
    was measured on.

    Args:
        folders: Where the raw files live: ``raw / "ProNE-DBLP"``.

    Returns:
        ``edge_index`` int64, both ways, and ``y`` ``(51264,)`` int64 in 0 … 59; no ``x``.

    Raises:
        OSError: If a file is missing and cannot be downloaded.
    """  # noqa: D205
    edges, classes = (
        _raw_file(folders.raw / "ProNE-DBLP" / file, _GITHUB.format("THUDM/ProNE", file))
        for file in ("dblp.ungraph", "dblp.cmty")
    )
    members = [
        np.array(line.split(), dtype=np.int64)
        for line in classes.read_text(encoding="utf-8").splitlines()
    ]
    y = np.full(sum(map(len, members)), -1)
    for label, nodes in enumerate(members):
        y[nodes] = label
    pairs = torch.from_numpy(np.loadtxt(edges, dtype=np.int64, ndmin=2)).T
    return Data(
        edge_index=to_undirected(pairs, num_nodes=len(y)),
        y=torch.from_numpy(y),
        num_nodes=len(y),
    )


def load_npz_structure(family: str, name: str, folders: Folders) -> Data | None:
    """Load edges and classes from an ``.npz`` file of raw data, and nothing else.

    A dense ``x`` takes a gigabyte and more (Physics: 34,493 × 8,415), and PyG cannot leave it out.

    Args:
        family: The folder below ``folders.raw``.
        name: The data set, as its folder there is called, in any case.
        folders: Where raw files live.

    Returns:
        ``edge_index`` and ``y`` as PyG has them; ``None`` where no such file is there.
    """
    root = folders.raw / family
    own = [folder for folder in root.glob("*/raw") if folder.parent.name.lower() == name.lower()]
    files = [file for folder in own for file in folder.glob("*.npz")]
    if len(files) != 1:
        return None
    with np.load(files[0]) as content:
        parts = [content[f"adj_{part}"] for part in ("data", "indices", "indptr")]
        adjacency = sparse.csr_matrix(tuple(parts), shape=content["adj_shape"])
        return _graph(adjacency, torch.from_numpy(content["labels"]).long())


def _graph(adjacency: sparse.spmatrix, y: Tensor) -> Data:
    pairs = adjacency.tocoo()
    edge_index = torch.from_numpy(np.stack([pairs.row, pairs.col]).astype(np.int64))
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    return Data(edge_index=to_undirected(edge_index, num_nodes=len(y)), y=y, num_nodes=len(y))


def _raw_file(path: Path, source: str) -> Path:
    """``path``, downloaded from ``source`` if it is not there."""
    if path.exists():
        return path
    try:
        with replacing(path) as unfinished, urlopen(source) as response:
            unfinished.write_bytes(response.read())
    except OSError as error:
        raise OSError(
            f"{path} is missing and cannot be downloaded from {source}: {error}. Put the file "
            f"there, or pass `root=` (or set GNNCOMPRESS_DATA) to a folder that has it."
        ) from error
    return path
