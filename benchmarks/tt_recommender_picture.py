"""Recall against reduction, and how it grew with training time, for each data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.output import Row
from benchmarks.picture import save_with_legend
from benchmarks.reduction_axis import show_reductions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS = {  # of kind and order: name, colour, marker
    ("full", "none"): ("full table", "#333333", "*"),
    ("tt", "random"): ("TT, nodes in random order", "#a8b3bf", "v"),
    ("tt", "flat_metis"): ("TT, flat METIS", "#4f86b5", "s"),
    ("tt", "metis"): ("TT, recursive METIS", "#d1603d", "o"),
    ("tt+parts", "metis"): ("TT + vectors of parts", "#8c4a9e", "D"),
    ("parts", "metis"): ("vectors of parts", "#5a9367", "^"),
}


def plot(rows: list[Row], path: Path) -> None:
    """Draws all rows, with 95 % intervals, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    figure = Figure(figsize=(9.2, 0.6 + 3.8 * len(datasets)), layout="constrained")
    FigureCanvasAgg(figure)
    fields = figure.subplots(len(datasets), 2, squeeze=False)
    for dataset, (sizes, curves) in zip(datasets, fields, strict=True):
        own = [row for row in rows if row["dataset"] == dataset]
        _plot_sizes(sizes, own)
        _plot_curves(curves, own)
        sizes.set_title(dataset)
    save_with_legend(figure, path, ncols=3)


def _plot_sizes(axes: Axes, rows: list[Row]) -> None:
    for row in rows:
        label, color, marker = _LOOKS[row["kind"], row["order"]]
        if row["kind"] == "full":
            axes.axhline(row["recall"], color=color, linewidth=1, zorder=0)
        axes.errorbar(
            [row["reduction"]],
            [row["recall"]],
            [row["recall_ci95"] or 0],
            fmt=marker,
            color=color,
            label=label,
            capsize=2,
        )
        if row["rank"]:
            place = (row["reduction"], row["recall"])
            axes.annotate(f"r{row['rank']}", place, (4, 3), textcoords="offset points", fontsize=7)
    show_reductions(axes)
    axes.set(xlabel="times fewer parameters", ylabel="test recall@20, %")
    axes.spines[["top", "right"]].set_visible(False)


def _plot_curves(axes: Axes, rows: list[Row]) -> None:
    for row in rows:
        _, color, _ = _LOOKS[row["kind"], row["order"]]
        seconds = [each[2] for each in row["curve"]]
        recall = [100 * each[1] for each in row["curve"]]
        axes.plot(seconds, recall, color=color, linewidth=1.2, alpha=0.9)
    axes.set(xlabel="processor time of training, s", ylabel="validation recall@20, %")
    axes.spines[["top", "right"]].set_visible(False)
