"""Which nodes train, validate and test."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch_geometric.data import Data

MASKS = ("train_mask", "val_mask", "test_mask")


def random_split(
    y: Tensor, seed: int = 0, num_train_per_class: int = 20, num_val_per_class: int = 30
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a split with the same number of labels for every class.

    This is the protocol of `Pitfalls of Graph Neural Network Evaluation
    <https://arxiv.org/abs/1811.05868>`_ for data sets without a public split: 20 training and 30
    validation nodes a class, all others test. The global random state is neither read nor moved.

    Args:
        y: Class of each node, ``(num_nodes,)``, integer. Nodes with a negative class are
            unlabelled and in no part.
        seed: Seed of the draw.
        num_train_per_class: Training nodes of each class.
        num_val_per_class: Validation nodes of each class.

    Returns:
        ``train_mask``, ``val_mask``, ``test_mask``, each ``(num_nodes,)`` bool, disjoint.

    Raises:
        ValueError: If a number is below 1, or a class has too few nodes.
    """
    for name, number in (
        ("num_train_per_class", num_train_per_class),
        ("num_val_per_class", num_val_per_class),
    ):
        if number < 1:
            raise ValueError(f"{name}={number} must be at least 1")
    generator = torch.Generator().manual_seed(seed)
    num_labelled = num_train_per_class + num_val_per_class
    train, val = torch.zeros(2, len(y), dtype=torch.bool)
    for label in y[y >= 0].unique().tolist():
        nodes = (y == label).nonzero().flatten()
        if len(nodes) <= num_labelled:
            raise ValueError(
                f"class {label} has {len(nodes)} nodes, too few for "
                f"num_train_per_class={num_train_per_class} and "
                f"num_val_per_class={num_val_per_class} with some left to test: lower them so "
                f"that they sum to less than {len(nodes)}, or take shares of all nodes, "
                f"split='shares'"
            )
        nodes = nodes[torch.randperm(len(nodes), generator=generator)]
        train[nodes[:num_train_per_class]] = True
        val[nodes[num_train_per_class:num_labelled]] = True
    return train, val, (y >= 0) & ~train & ~val


def share_split(
    y: Tensor, seed: int = 0, train_share: float = 0.1, val_share: float = 0.1
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a split by shares of all labelled nodes, whatever their classes.

    The global random state is neither read nor moved.

    Args:
        y: Class of each node, ``(num_nodes,)``, integer. Nodes with a negative class are
            unlabelled and in no part.
        seed: Seed of the draw.
        train_share: Training nodes, as a share of the labelled ones.
        val_share: Validation nodes, likewise; all others test.

    Returns:
        ``train_mask``, ``val_mask``, ``test_mask``, each ``(num_nodes,)`` bool, disjoint.

    Raises:
        ValueError: If a part would be empty.
    """
    nodes = (y >= 0).nonzero().flatten()
    nodes = nodes[torch.randperm(len(nodes), generator=torch.Generator().manual_seed(seed))]
    num_train, num_val = round(train_share * len(nodes)), round(val_share * len(nodes))
    if min(num_train, num_val, len(nodes) - num_train - num_val) < 1:
        raise ValueError(
            f"train_share={train_share} and val_share={val_share} of {len(nodes)} labelled nodes "
            f"leave a part empty: give two positive shares that sum to less than 1"
        )
    masks = torch.zeros(3, len(y), dtype=torch.bool)
    parts = nodes.split([num_train, num_val, len(nodes) - num_train - num_val])
    for mask, part in zip(masks, parts, strict=True):
        mask[part] = True
    return masks[0], masks[1], masks[2]


def apply_split(
    data: Data,
    split: int | Literal["random", "shares"] | None = None,
    seed: int = 0,
    num_train_per_class: int = 20,
    num_val_per_class: int = 30,
    train_share: float = 0.1,
    val_share: float = 0.1,
) -> Data:
    """Give a graph one ``train_mask``, ``val_mask`` and ``test_mask``, in place.

    Args:
        data: A graph with ``y``; its masks, if any, are ``(num_nodes,)`` or, with several
            published splits, ``(num_nodes, num_splits)``.
        split: Number of the published split; ``"random"`` draws one with ``random_split``,
            ``"shares"`` with ``share_split``; ``None`` takes the first published split, or is
            ``"random"`` where none is published.
        seed: Seed of a drawn split.
        num_train_per_class: Training nodes of each class of a random split.
        num_val_per_class: Validation nodes of each class of a random split.
        train_share: Training nodes of a split by shares.
        val_share: Validation nodes of a split by shares.

    Returns:
        ``data``, with masks of shape ``(num_nodes,)``.

    Raises:
        ValueError: If there is no such published split, or a random one cannot be drawn.
    """
    published = all(mask in data for mask in MASKS)
    if split == "random" or (split is None and not published):
        masks = random_split(data.y, seed, num_train_per_class, num_val_per_class)
        data.update(dict(zip(MASKS, masks, strict=True)))
        return data
    if split == "shares":
        masks = share_split(data.y, seed, train_share, val_share)
        data.update(dict(zip(MASKS, masks, strict=True)))
        return data
    columns = [data[mask].view(len(data[mask]), -1) for mask in MASKS] if published else []
    num_splits = max((column.size(1) for column in columns), default=0)
    index = 0 if split is None else split
    if not isinstance(index, int) or not 0 <= index < num_splits:
        known = f"0 to {num_splits - 1}" if num_splits else "none"
        raise ValueError(
            f"split={split!r} is not among the published splits of this graph ({known}): "
            "pass one of them, or 'random' or 'shares' with a `split_seed`"
        )
    for mask, column in zip(MASKS, columns, strict=True):
        # One test mask may be shared by all splits.
        data[mask] = column[:, min(index, column.size(1) - 1)].contiguous()
    return data
