"""Who chose what: interactions of users with items, from files and from a generator."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_gnncompress.data.folders import Folders

SPLITS = ("train", "valid", "test")
_SOURCES = {
    "Gowalla": "geon0325/LightGCNpp (data/gowalla) on GitHub; the split of LightGCN's paper",
    "MovieLens1M": "xue-pai/UltraGCN on GitHub; the terms of GroupLens apply",
}
GENERATED = "communities"
MOST_IDS = 2**31  # a table has a row for each


@dataclass(frozen=True)
class Interactions:
    """Published parts of a data set, or all of it in ``train``.

    Attributes:
        train: Users and items, int64 of shape ``(2, E)``, by user, each pair once.
        valid: Likewise; ``None`` where there is no such part.
        test: Likewise.
    """

    train: Tensor
    valid: Tensor | None = None
    test: Tensor | None = None

    @property
    def parts(self) -> dict[str, Tensor]:
        """The parts that there are, by name."""
        named = zip(SPLITS, (self.train, self.valid, self.test), strict=True)
        return {name: part for name, part in named if part is not None}


def available_interactions() -> list[str]:
    """Names that ``load_interactions`` knows."""
    return [GENERATED, *_SOURCES]


def canonical_interactions(name: str) -> str:
    """The name as ``available_interactions`` spells it.

    Raises:
        ValueError: If no data set has that name, in any case.
    """
    spelling = {known.lower(): known for known in available_interactions()}
    if name.lower() not in spelling:
        raise ValueError(
            f"No interactions are named {name!r}. Known: {', '.join(spelling.values())}; for a "
            f"file or folder of your own, pass `path=`"
        )
    return spelling[name.lower()]


def load_interactions(name: str, root: str | os.PathLike[str] | None = None) -> Interactions:
    """Load interactions by name.

    | name | what |
    |---|---|
    | ``communities`` | generated, see :func:`communities`; needs no file |
    | ``Gowalla`` | check-ins of 29,858 users at 40,981 places; train and valid together are \
LightGCN's training set, test its test set |
    | ``MovieLens1M`` | films that 6,022 users rated, of 3,043; train and test |

    Args:
        name: One of ``available_interactions``, in any case.
        root: Folder that holds ``Gowalla/train.txt`` and so on; ``None`` takes the environment
            variable ``GNNCOMPRESS_DATA``, and without it ``~/.cache/lit_gnncompress``.

    Raises:
        ValueError: If no data set has that name, or a file is not as :func:`read_interactions`
            wants it.
        FileNotFoundError: If the files are not there. None are downloaded.
    """
    name = canonical_interactions(name)
    if name == GENERATED:
        return Interactions(communities())
    folder = Folders.resolve(root).raw / name
    if not (folder / "train.txt").is_file():
        raise FileNotFoundError(
            f"{folder / 'train.txt'} is missing. Put train.txt, valid.txt (if there is one) and "
            f"test.txt of {_SOURCES[name]} there, or pass `root=` (or set GNNCOMPRESS_DATA) to the "
            f"folder that has {name}/"
        )
    return load_folder(folder)


def load_folder(path: str | os.PathLike[str], pairs: bool = False) -> Interactions:
    """Load ``train.txt``, ``valid.txt`` and ``test.txt`` of a folder, or a single file.

    Args:
        path: The folder, in which only ``train.txt`` must be, or a file of all interactions.
        pairs: As for :func:`read_interactions`.

    Raises:
        ValueError: As :func:`read_interactions`.
        FileNotFoundError: If there is no such file or folder, or no ``train.txt`` in it.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return Interactions(read_interactions(path, pairs))
    files = {part: path / f"{part}.txt" for part in SPLITS}
    if not files["train"].is_file():
        what = "has no train.txt" if path.is_dir() else "is neither a file nor a folder"
        raise FileNotFoundError(
            f"path={str(path)!r} {what}: give a file of interactions, or a folder with train.txt "
            f"and, if there are any, valid.txt and test.txt"
        )
    parts = {
        part: read_interactions(file, pairs, may_be_empty=part != "train")
        for part, file in files.items()
        if file.is_file()
    }
    return Interactions(parts["train"], parts.get("valid"), parts.get("test"))


def read_interactions(
    path: str | os.PathLike[str], pairs: bool = False, may_be_empty: bool = False
) -> Tensor:
    """Read interactions from text: whole numbers from 0, apart by blanks or commas.

    Args:
        path: The file. A line is ``user item item …``; a user may have several lines, and a line
            without items tells nothing.
        pairs: Whether a line is ``user item …`` instead, where what follows (a rating, a time) is
            not read.
        may_be_empty: Whether a file without interactions is fine.

    Returns:
        Users and items, int64 of shape ``(2, E)``, by user, each pair once.

    Raises:
        ValueError: If a line is not as described, an id is negative, or there are no interactions.
    """
    users, items = [], []
    with open(path, encoding="utf-8", errors="replace") as lines:  # whose errors name no line
        for number, line in enumerate(lines, start=1):
            words = line.replace(",", " ").split()
            try:
                ids = np.array(words[:2] if pairs else words, dtype=np.int64)
            except (ValueError, OverflowError):
                ids = np.array([-1])
            if len(ids) and not 0 <= ids.min() <= ids.max() < MOST_IDS:
                raise ValueError(
                    f"{path}, line {number}: {line.strip()[:60]!r} is not "
                    f"{'a user and an item' if pairs else 'a user and items'}, whole numbers from "
                    f"0 to below {MOST_IDS}: number users and items, each from 0"
                )
            if len(ids) > 1:
                users.append(np.full(len(ids) - 1, ids[0]))
                items.append(ids[1:])
    if not users:
        if may_be_empty:
            return torch.empty(2, 0, dtype=torch.long)
        raise ValueError(f"{path} holds no interaction: a line is `user item item …`")
    return by_user(torch.from_numpy(np.stack([np.concatenate(users), np.concatenate(items)])))


def by_user(edges: Tensor) -> Tensor:
    """The pairs by user and item, each once.

    Args:
        edges: Users and items, integers from 0 to below 2**31, shape ``(2, E)``.

    Returns:
        int64 of shape ``(2, E)``.
    """
    keys = (edges[0].long() * MOST_IDS + edges[1]).unique()
    return torch.stack([keys // MOST_IDS, keys % MOST_IDS])


def communities(
    num_users: int = 400,
    num_items: int = 300,
    num_communities: int = 10,
    items_per_user: int = 20,
    loyalty: float = 0.8,
    seed: int = 0,
) -> Tensor:
    """Users who mostly choose among the items of their community, a few of them popular.

    The global random state is neither read nor moved, and ids tell nothing of communities.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        num_communities: Number of communities.
        items_per_user: Choices of a user; those made twice count once.
        loyalty: Share of choices within the own community.
        seed: Seed of the draw.

    Returns:
        Users and items, int64 of shape ``(2, E)``, by user, each pair once.

    Raises:
        ValueError: If a number is below 1, there are fewer items than communities, or ``loyalty``
            is no share.
    """
    if min(num_users, num_items, num_communities, items_per_user) < 1:
        raise ValueError("numbers of users, items, communities and choices must be at least 1")
    if num_items < num_communities or not 0 <= loyalty <= 1:
        raise ValueError(
            f"num_items={num_items} must be at least num_communities={num_communities}, and "
            f"loyalty={loyalty} between 0 and 1"
        )
    draw = np.random.default_rng(seed)
    home = draw.integers(num_communities, size=num_users)
    users = np.repeat(np.arange(num_users), items_per_user)
    # The square makes low ranks popular.
    ranks = np.floor(num_items // num_communities * draw.random(len(users)) ** 2).astype(np.int64)
    away = draw.random(len(users)) >= loyalty
    community = np.where(away, draw.integers(num_communities, size=len(users)), home[users])
    items = draw.permutation(num_items)[ranks * num_communities + community]
    return by_user(torch.from_numpy(np.stack([users, items])))
