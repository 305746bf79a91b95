"""Files that are complete or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A place beside ``path`` to write to, which takes its place when the block ends well.

    A block that raises leaves ``path`` as it was, and nothing beside it. Folders are made.

    Args:
        path: The file to write or to replace.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Other processes may write the same file.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
