"""Where files of rows are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lit_gnncompress.data.folders import Folders

GENERATED = "clicks"

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None


class Sources(NamedTuple):
    """Files of rows.

    Attributes:
        train: Files that are split, or train alone where there are ``test`` ones.
        test: Files of a published part to test with.
        unlabelled: Files without labels, to predict.
    """

    train: tuple[Path, ...]
    test: tuple[Path, ...] = ()
    unlabelled: tuple[Path, ...] = ()


class KnownSources:
    """Published files by the name of their folder.

    Args:
        files: Names of the files of each part of :class:`Sources`, by name of the folder.
        origin: Where to get them, to follow "from".
    """

    def __init__(self, files: Mapping[str, Mapping[str, Sequence[str]]], origin: str) -> None:
        self._files, self._origin = files, origin

    def canonical(self, name: str) -> str:
        """The name as folders are spelled, or ``clicks``.

        Raises:
            ValueError: If there is no such name, in any case.
        """
        spelling = {known.lower(): known for known in (GENERATED, *self._files)}
        if name.lower() not in spelling:
            raise ValueError(
                f"name={name!r} is unknown. Known: {', '.join(spelling.values())}; for files of "
                f"your own, pass `path=`"
            )
        return spelling[name.lower()]

    def named(self, name: str, root: str | os.PathLike[str] | None) -> Sources:
        """The files of a name; only those to predict may be missing.

        Raises:
            FileNotFoundError: If others are missing.
        """
        folder = Folders.resolve(root).raw / name
        found = {}
        for part, names in self._files[name].items():
            paths = [_plain_or_gz(folder / each) for each in names]
            lacking = [each for each, path in zip(names, paths, strict=True) if path is None]
            if lacking and part != "unlabelled":
                raise FileNotFoundError(
                    f"{folder / lacking[0]} is missing, and no {lacking[0]}.gz is there. Put "
                    f"{', '.join(names)} there, from {self._origin}, or pass `root=` (or set "
                    f"GNNCOMPRESS_DATA) to the folder that has {name}/"
                )
            found[part] = tuple(path for path in paths if path is not None)
        return Sources(**found)


def given(path: Paths, test_path: Paths, predict_path: Paths) -> Sources:
    """The files that these arguments name; ``.gz`` may be left out.

    Raises:
        FileNotFoundError: If one is missing.
        IsADirectoryError: If one is a folder.
    """
    arguments = {"path": path, "test_path": test_path, "predict_path": predict_path}
    parts = []
    for argument, paths in arguments.items():
        each = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths or [])
        parts.append(tuple(_existing(argument, Path(one)) for one in each))
    return Sources(*parts)


def _existing(argument: str, path: Path) -> Path:
    path = path.expanduser().resolve()
    found = _plain_or_gz(path)
    if found is None and path.is_dir():
        raise IsADirectoryError(f"{argument}: {path} is a folder: name the files in it.")
    if found is None:
        raise FileNotFoundError(f"{argument}: there is no file {path}, nor {path.name}.gz there.")
    return found


def _plain_or_gz(path: Path) -> Path | None:
    both = (path, path.with_name(f"{path.name}.gz"))
    return next((each for each in both if each.is_file()), None)
