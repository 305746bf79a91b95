"""A real graph that needs no download: handwritten digits and their nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected


def digits_graph(num_neighbors: int = 10) -> Data:
    """Handwritten digits as nodes, each joined to its nearest neighbours.

    The 1,797 images of 8 × 8 pixels are scikit-learn's copy of the test part of UCI's
    `Optical Recognition of Handwritten Digits <https://doi.org/10.24432/C50P49>`_ (E. Alpaydin
    and C. Kaynak, CC BY 4.0). It is the same graph on every machine: distances are exact
    integers, and of equally near images the one with the lower index is taken.

    Args:
        num_neighbors: Neighbours that each image chooses, 1 to 1,796. An edge runs both ways
            whichever end chose it, so degrees differ.

    Returns:
        A graph with ``x`` ``(1797, 64)`` float32 in [0, 1], undirected ``edge_index`` int64 and
        ``y`` ``(1797,)`` int64 in 0 … 9. It has no split: see ``random_split``.

    Raises:
        ValueError: If ``num_neighbors`` is out of range.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    if not 1 <= num_neighbors < len(pixels):
        raise ValueError(
            f"num_neighbors={num_neighbors} must be from 1 to {len(pixels) - 1}, "
            "the number of other images"
        )
    images = torch.from_numpy(pixels)
    edge_index = _nearest_neighbours(images, num_neighbors)
    return Data(
        x=(images / 16).float(),
        edge_index=to_undirected(edge_index, num_nodes=len(images)),
        y=torch.from_numpy(labels).long(),
    )


def _nearest_neighbours(points: Tensor, k: int) -> Tensor:
    """Edges from the ``k`` nearest points to each point; ``points`` hold whole numbers."""
    num_points = len(points)
    norms = points.square().sum(dim=1)
    distance = (norms[:, None] + norms[None, :] - 2 * points @ points.T).round().long()
    distance.fill_diagonal_(int(distance.max()) + 1)
    # The index as the last digits of the key leaves no ties for topk to break as it likes.
    key = distance * num_points + torch.arange(num_points)
    source = key.topk(k, dim=1, largest=False).indices
    target = torch.arange(num_points).repeat_interleave(k)
    return torch.stack([source.flatten(), target])
