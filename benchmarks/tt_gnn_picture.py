"""Accuracy against reduction, a field per graph and model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.output import Row
from benchmarks.picture import save_with_legend
from benchmarks.reduction_axis import show_reductions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = {  # how a method is told from others: its name begins so, its orders, colour, marker
    "TT, nodes in random order": ("TT rank", ("random",), "#a8b3bf", "v"),
    "TT, flat METIS": ("TT rank", ("flat_metis",), "#4f86b5", "s"),
    "TT, recursive METIS": ("TT rank", ("metis",), "#d1603d", "o"),
    "TT + vectors of parts": ("TT + parts", ("metis",), "#8c4a9e", "D"),
    "vectors of parts": ("vectors of parts", ("metis",), "#5a9367", "^"),
}
_FULL = "#333333"
_COLUMNS = 3


def plot(rows: list[Row], path: Path) -> None:
    """Draws all rows, with 95 % intervals and the full table as a line, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pairs = list(dict.fromkeys((row["dataset"], row["model"]) for row in rows))
    columns = min(_COLUMNS, len(pairs))
    lines = math.ceil(len(pairs) / columns)
    figure = Figure(figsize=(3.4 * columns, 3.2 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    fields = figure.subplots(lines, columns, squeeze=False).flat
    for axes, (dataset, model) in zip(fields, pairs, strict=False):
        _plot_field(axes, [r for r in rows if (r["dataset"], r["model"]) == (dataset, model)])
        axes.set_title(f"{dataset}, {model.upper()}")
        axes.set_xlabel("times fewer parameters")
        axes.set_ylabel("test accuracy, %")
    for axes in fields[len(pairs) :]:
        axes.set_axis_off()
    save_with_legend(figure, path, ncols=min(2, columns))


def _plot_field(axes: Axes, rows: list[Row]) -> None:
    axes.axhline(rows[0]["full_acc"], color=_FULL, linewidth=1.2, label="full table")
    half_width = rows[0]["full_acc_ci95"]
    if half_width is not None:
        low, high = rows[0]["full_acc"] - half_width, rows[0]["full_acc"] + half_width
        axes.axhspan(low, high, color=_FULL, alpha=0.08, linewidth=0)
    for number, (label, (begins, orders, color, marker)) in enumerate(_KINDS.items()):
        for start, fill in (("random", color), ("structure", "white")):
            aside = 1.03 ** (2 * (number - 3) + (start == "structure"))  # equal sizes would overlap
            own = sorted(
                (
                    row
                    for row in rows
                    if row["method"].startswith(begins)
                    and row["order"] in orders
                    and row["start"] == start
                ),
                key=lambda row: row["reduction"],
            )
            if own:
                axes.errorbar(
                    [aside * row["reduction"] for row in own],
                    [row["tt_acc"] for row in own],
                    [row["tt_acc_ci95"] or 0 for row in own],
                    fmt=marker,
                    color=color,
                    markerfacecolor=fill,
                    markersize=5,
                    elinewidth=1,
                    capsize=2,
                    label=label if start == "random" else f"{label}, start by structure",
                )
    show_reductions(axes)
    axes.spines[["top", "right"]].set_visible(False)
