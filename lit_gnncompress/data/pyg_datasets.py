"""Load a PyG data set from one folder while its processed files go to another."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from torch_geometric.data import Data, InMemoryDataset

from lit_gnncompress.data.folders import Folders

DatasetT = TypeVar("DatasetT", bound=InMemoryDataset)


def relocated(
    dataset: type[DatasetT], processed: Path, flat_raw: Path | None = None
) -> type[DatasetT]:
    """A subclass of a PyG data set that keeps its files elsewhere.

    Args:
        dataset: The PyG class.
        processed: Where processed files go.
        flat_raw: Where raw files lie, if not where PyG expects them.

    Returns:
        The subclass, under the name of ``dataset``.
    """
    places = {"processed_dir": property(lambda self: str(processed))}
    if flat_raw is not None:
        places["raw_dir"] = property(lambda self: str(flat_raw))
    return type(dataset.__name__, (dataset,), places)


def load_pyg(family: str, name: str | None, folders: Folders) -> Data:
    """Load the only graph of a PyG data set, downloading its raw files if they are missing.

    Processes that load the same graph at once wait for each other.

    Args:
        family: A key of ``PYG_CLASSES``, also the name of the folder below ``folders.raw``.
        name: The data set as its PyG class calls it, ``None`` for a class with one data set.
        folders: Where raw and processed files live.

    Returns:
        The graph as PyG has it.

    Raises:
        OSError: If files are missing and cannot be downloaded, or cannot be written.
    """
    from torch_geometric import datasets

    dataset = getattr(datasets, PYG_CLASSES[family])
    processed = folders.processed / family / (name or family)
    raw_root = folders.raw / family
    # Heterophilous sets are published as bare files: read them where they were put.
    flat = raw_root if name and (raw_root / f"{_snake(name)}.npz").exists() else None
    arguments = {} if name is None else {"name": name}
    try:
        processed.mkdir(parents=True, exist_ok=True)
        with FileLock(processed / ".lock"):
            return relocated(dataset, processed, flat)(root=str(raw_root), **arguments)[0]
    except OSError as error:
        raise OSError(
            f"Cannot load {name or family!r} of {family}: {error}. Its raw files are read from "
            f"(or downloaded into) {raw_root}, its processed files are written to {processed}. "
            "Pass `root=` (or set GNNCOMPRESS_DATA) to a folder that has the raw files or can be "
            "written with a network connection at hand, and `processed_dir=` to a writable one."
        ) from error


PYG_CLASSES = {
    "Planetoid": "Planetoid",
    "Amazon": "Amazon",
    "Coauthor": "Coauthor",
    "CitationFull": "CitationFull",
    "Heterophilous": "HeterophilousGraphDataset",
    "Reddit": "Reddit",
}
"""The PyG class behind each family of data sets."""


def _snake(name: str) -> str:
    return name.lower().replace("-", "_")
