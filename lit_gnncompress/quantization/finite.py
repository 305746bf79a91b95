"""Features that cannot be quantized: a NaN, or an infinity."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_finite(x: Tensor, done: str = "quantized", first_row: int = 0, remedy: str = "") -> None:
    """Refuses NaN and infinity.

    Args:
        x: Features, shape ``(N, F)`` or ``(N, …, F)``.
        done: What is done to them.
        first_row: Number of the first row, where ``x`` is a block of a larger matrix.
        remedy: What helps besides cleaning the data.

    Raises:
        ValueError: Naming the first such row and column.
    """
    # The sum is quick; it may overflow though all is finite.
    if math.isfinite(x.sum().item()) or bool(torch.isfinite(x).all()):
        return
    place = (~torch.isfinite(x)).nonzero()[0].tolist()
    raise ValueError(
        f"features must be finite to be {done}; row {first_row + place[0]}, column {place[-1]} is "
        f"{x[tuple(place)].item()}. Clean the data, for instance with torch.nan_to_num{remedy}."
    )
