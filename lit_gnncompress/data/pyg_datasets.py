"""Load a PyG data set from one folder while its processed files go to another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from torch_geometric.data import Data, InMemoryDataset

from lit_gnncompress.data.folders import Folders

DatasetT = TypeVar("DatasetT", bound=InMemoryDataset)


def relocated(
    dataset: type[DatasetT], processed: Path, flat_raw: Path | None = None
) -> type[DatasetT]:
    """A subclass of a PyG data set that keeps its files elsewhere, complete or not at all.

    PyG downloads and processes to the files' own names, where a process that is killed leaves half
    a file, which the next one reads. Here files are made in a folder beside, ``.unfinished``, and
    moved when all are there. Other processes that want the same files wait.

    Args:
        dataset: The PyG class.
        processed: Where processed files go.
        flat_raw: Where raw files lie, if not where PyG expects them.

    Returns:
        The subclass, under the name of ``dataset``.
    """
    unfinished: dict[str, Path] = {}

    def processed_dir(self: DatasetT) -> str:
        return str(unfinished.get("processed", processed))

    def raw_dir(self: DatasetT) -> str:
        expected = flat_raw or dataset.raw_dir.fget(self)  # type: ignore[attr-defined]
        return str(unfinished.get("raw", expected))

    def beside(kind: str, make: Callable[[DatasetT], None]) -> Callable[[DatasetT], None]:
        def is_made(self: DatasetT) -> bool:
            return all(map(os.path.exists, getattr(self, f"{kind}_paths")))

        def made(self: DatasetT) -> None:
            if is_made(self):
                return make(self)  # which has checks of what is there
            folder = Path(getattr(self, f"{kind}_dir"))
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                if not is_made(self):
                    unfinished[kind] = folder / ".unfinished"
                    try:
                        _make_in(unfinished[kind], folder, lambda: make(self))
                    finally:
                        del unfinished[kind]

        return made

    changes = {
        "processed_dir": property(processed_dir),
        "raw_dir": property(raw_dir),
        "_process": beside("processed", dataset._process),
        "_download": beside("raw", dataset._download),
    }
    return type(dataset.__name__, (dataset,), changes)


def _make_in(unfinished: Path, folder: Path, make: Callable[[], None]) -> None:
    """Moves what ``make`` writes to ``unfinished`` to ``folder``, if all goes well."""
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
        make()
        if unfinished.exists():  # ogb downloads elsewhere
            for path in unfinished.iterdir():
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
