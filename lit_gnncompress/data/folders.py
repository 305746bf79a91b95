"""Where raw and processed files of data sets live."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch_geometric

ROOT_VARIABLE = "GNNCOMPRESS_DATA"
_CACHE = Path("~/.cache/lit_gnncompress")


@dataclass(frozen=True)
class Folders:
    """The folder that raw files are read from, and the one that processed files are written to.

    They are kept apart because PyG writes its processed files beside the raw ones, and a folder
    of raw files may be shared or read-only.

    Attributes:
        raw: Raw files, one folder a family (``raw / "Planetoid" / "Cora" / "raw"``). Missing
            files are downloaded into it.
        processed: Processed files, for this raw folder and this version of PyG alone.
    """

    raw: Path
    processed: Path

    @classmethod
    def resolve(
        cls,
        root: str | os.PathLike[str] | None = None,
        processed_dir: str | os.PathLike[str] | None = None,
    ) -> Folders:
        """Choose the folders; nothing is created yet.

        Args:
            root: Folder of raw files. ``None`` takes the environment variable
                ``GNNCOMPRESS_DATA``, and without it ``~/.cache/lit_gnncompress``.
            processed_dir: Folder of processed files. ``None`` takes
                ``~/.cache/lit_gnncompress/processed``. Each raw folder and each version of PyG
                gets a folder of its own below it, so they never read each other's files.

        Returns:
            The two folders, absolute.
        """
        raw = Path(root or os.environ.get(ROOT_VARIABLE) or _CACHE).expanduser().resolve()
        base = Path(processed_dir or _CACHE / "processed").expanduser().resolve()
        key = hashlib.sha256(str(raw).encode()).hexdigest()[:8]
        return cls(raw, base / f"pyg-{torch_geometric.__version__}-{key}")
