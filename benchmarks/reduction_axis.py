"""An axis of how many times smaller tables are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def show_reductions(axes: Axes) -> None:
    """Makes the horizontal axis logarithmic, with ticks such as ``30×``."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.xaxis.set_minor_formatter(_minor)


def _minor(reduction: float, place: float) -> str:
    """A label for some of the ticks between powers of ten, which crowd."""
    return f"{reduction:g}×" if f"{reduction:g}"[0] in "236" else ""
