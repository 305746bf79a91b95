"""Pictures of several axes with one legend below them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lit_gnncompress.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_with_legend(figure: Figure, path: Path, ncols: int) -> None:
    """Writes a figure as PNG, with each label of its axes once.

    Args:
        figure: The figure, with ``layout="constrained"``.
        path: The file.
        ncols: Labels side by side.
    """
    labels = {
        t: h for f in figure.axes for h, t in zip(*f.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(labels.values()), list(labels), loc="outside lower center", ncols=ncols, frameon=False
    )
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=150, format="png")
