"""Which interactions train, validate and test."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.data.interactions_files import Interactions, by_user


def split_by_user(edges: Tensor, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Hold back a share of each user's interactions, drawn at random.

    Of ``n`` interactions ``share * n`` are held back, rounded, and at least one is kept. The global
    random state is neither read nor moved.

    Args:
        edges: Users and items, int64 of shape ``(2, E)``, by user.
        share: Share to hold back, from 0 to below 1.
        seed: Seed of the draw.

    Returns:
        Those kept and those held back, in their order.

    Raises:
        ValueError: If ``share`` is out of range.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share={share} must be from 0 to below 1")
    users, count = edges[0], torch.bincount(edges[0])
    shuffled = torch.randperm(len(users), generator=torch.Generator().manual_seed(seed))
    by_user = shuffled[users[shuffled].argsort(stable=True)]
    first = count.cumsum(0) - count
    rank = torch.empty_like(by_user)
    rank[by_user] = torch.arange(len(users)) - first[users[by_user]]
    held = rank < torch.minimum((share * count).round(), count - 1)[users]
    return edges[:, ~held], edges[:, held]


def split_interactions(
    found: Interactions, val_share: float | None = None, test_share: float = 0.2, seed: int = 0
) -> Interactions:
    """Give interactions the three parts.

    Args:
        found: What was published.
        val_share: Share of each user's other interactions to validate with. ``None`` takes the
            published part, or 0.1 where there is none; 0 validates nothing, and trains on a
            published part for validation, too. A published part is drawn anew for any other share.
        test_share: Share of each user's interactions to test with, where no part is published.
        seed: Seed of drawn parts.

    Returns:
        The three parts; each may be empty but ``train``.

    Raises:
        ValueError: If a share is out of range, a pair is in two published parts, or a user has
            nothing to train on but something to validate or test.
    """
    for name, share in (("val_share", val_share), ("test_share", test_share)):
        if share is not None and not 0 <= share < 1:
            raise ValueError(f"{name}={share} must be from 0 to below 1")
    _check_disjoint(found)
    train, valid, test = found.train, found.valid, found.test
    if test is None and valid is not None:
        raise ValueError(
            "there is a part to validate with, but none to test with: add test.txt, or pass one "
            "file with all interactions"
        )
    if test is None:
        train, test = split_by_user(train, test_share, 2 * seed)
    if valid is not None and val_share is not None:
        train, valid = by_user(torch.cat([train, valid], dim=1)), None
    if valid is None:
        train, valid = split_by_user(train, 0.1 if val_share is None else val_share, 2 * seed + 1)
    _check_trained(train, valid, test)
    return Interactions(train, valid, test)


def _check_disjoint(found: Interactions) -> None:
    parts = list(found.parts.items())
    num_items = 1 + max((int(part[1].max()) for _, part in parts if part.numel()), default=0)
    for place, (name, part) in enumerate(parts):
        for other, later in parts[place + 1 :]:
            twice = torch.isin(later[0] * num_items + later[1], part[0] * num_items + part[1])
            if bool(twice.any()):
                user, item = later[:, twice][:, 0].tolist()
                raise ValueError(
                    f"{int(twice.sum())} interactions are in both {name} and {other}, the first "
                    f"is user {user} with item {item}: what trains cannot be found again, so take "
                    f"them out of one"
                )


def _check_trained(train: Tensor, valid: Tensor, test: Tensor) -> None:
    for name, part in (("valid", valid), ("test", test)):
        cold = part[0][~torch.isin(part[0], train[0])].unique()
        if len(cold):
            raise ValueError(
                f"{len(cold)} users have interactions in {name} but none in train, the first is "
                f"user {int(cold[0])}: nothing is known of them, so take them out or move some of "
                f"theirs to train"
            )
