"""AUC and log loss against reduction, a column per data set, a line per kind of table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.click_tables import NAMES, Kind
from benchmarks.click_verdicts import ALLOWED
from benchmarks.output import Row
from benchmarks.picture import save_with_legend
from benchmarks.reduction_axis import show_reductions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS: dict[Kind, tuple[str, str]] = {  # colour, marker
    "tt": ("#d1603d", "o"),
    "tt+hot": ("#8c4a9e", "D"),
    "product": ("#4f86b5", "s"),
    "sum": ("#5a9367", "^"),
    "hash": ("#a8b3bf", "v"),
}
_ORDERS = {  # name, marker
    "none": ("no order", "x"),
    "frequency": ("by frequency", "+"),
    "cooccurrence": ("by co-occurrence", "1"),
    "clicked": ("by co-occurrence in clicked rows", "2"),
    "spectral": ("the same, spectral", "3"),
}
_FULL = "#333333"


def plot(rows: list[Row], path: Path) -> None:
    """Draws the tested rows, with 95 % intervals and the full tables as a line, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["auc"] is not None]
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    figure = Figure(figsize=(4.8 * max(len(datasets), 1), 6.8), layout="constrained")
    FigureCanvasAgg(figure)
    fields = figure.subplots(2, max(len(datasets), 1), squeeze=False, sharex="col")
    for dataset, (upper, lower) in zip(datasets, fields.T, strict=False):
        own = [row for row in rows if row["dataset"] == dataset]
        _plot_field(upper, own, "delta", ALLOWED)
        upper.axhline(-ALLOWED, color=_FULL, linewidth=0.8, linestyle=":")
        upper.set_title(dataset)
        _plot_field(lower, own, "loss_delta", ALLOWED / 100)
        lower.set_xlabel("tables times smaller")
    fields[0, 0].set_ylabel("test AUC less that of full tables, points")
    fields[1, 0].set_ylabel("log loss less that of full tables")
    save_with_legend(figure, path, ncols=3)


def _plot_field(axes: Axes, rows: list[Row], name: str, finest: float) -> None:
    """The orders that validation prefers as lines; tensor trains of others as small marks."""
    axes.axhline(0, color=_FULL, linewidth=1.2, label="full tables")
    for kind, (color, marker) in _LOOKS.items():
        own = sorted(
            (row for row in rows if row["kind"] == kind and row["chosen"]),
            key=lambda row: row["reduction"],
        )
        if own:
            axes.errorbar(
                [row["reduction"] for row in own],
                [row[name] for row in own],
                [row[f"{name}_ci95"] or 0 for row in own],
                marker=marker,
                color=color,
                markersize=5,
                linewidth=1.2,
                elinewidth=1,
                capsize=2,
                label=NAMES[kind],
            )
    for row in rows:
        if row["kind"] == "tt" and not row["chosen"]:
            order, marker = _ORDERS[row["order"]]
            axes.plot(
                row["reduction"],
                row[name],
                marker,
                color=_LOOKS["tt"][0],
                markersize=7,
                label=f"TT, {order}",
            )
    # A shared row costs hashing many times what the others differ by.
    axes.set_yscale("symlog", linthresh=finest, linscale=0.5)
    ticks = [finest * times for times in (1, 10 / 3, 10, 100 / 3)]
    axes.set_yticks([*(-tick for tick in ticks), 0, *ticks])
    axes.yaxis.set_major_formatter("{x:.2g}")
    axes.minorticks_off()
    values = [row[name] for row in rows]
    axes.set_ylim(1.5 * min(*values, -finest), 1.5 * max(*values, finest))
    show_reductions(axes)
    axes.spines[["top", "right"]].set_visible(False)
