"""What a person looks at: tables in the terminal, and a comparison as JSON and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from lit_gnncompress.files import replacing
from lit_gnncompress.needed import needed
from lit_gnncompress.plan import FULL_PRECISION
from lit_gnncompress.results import Comparison
from lit_gnncompress.storage.ledger import Ledger

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FP32, _LOSSLESS, _STORED = "#a8b3bf", "#4f86b5", "#d1603d"


def print_ledger(ledger: Ledger, console: Console | None = None) -> None:
    """Prints the ledger as a table, a line per site and degree bucket."""
    (console or Console()).print(_ledger_table(ledger))


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Prints the ledger and, below it, the metric with its intervals."""
    console = console or Console()
    print_ledger(comparison.ledger, console)
    table = Table(title=f"{comparison.metric} of {len(comparison.results)} seeds, paired")
    for name in ("", "mean", "95 % interval"):
        table.add_column(name, justify="right" if name else "left")
    for name in ("full_precision", "quantized", "delta"):
        interval = getattr(comparison, name)
        sign = "+" if name == "delta" else ""
        mean = f"{interval.mean:{sign}.4f}"
        table.add_row(name.replace("_", " "), mean, f"± {interval.ci95:.4f}")
    console.print(table)


def write_report(comparison: Comparison, folder: str | Path) -> tuple[Path, Path]:
    """Writes ``report.json`` and ``report.png`` into ``folder``, which is made if need be.

    Returns:
        The two paths.
    """
    text, picture = Path(folder) / "report.json", Path(folder) / "report.png"
    with replacing(text) as unfinished:
        unfinished.write_text(json.dumps(comparison.to_dict(), indent=2), encoding="utf-8")
    with replacing(picture) as unfinished:
        plot_comparison(comparison, unfinished)
    return text, picture


def plot_comparison(comparison: Comparison, path: str | Path) -> None:
    """Draws bits by site, bytes before and after, and the metric with its interval, as PNG."""
    with needed("matplotlib", by="The plot of a report"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    bits, sizes, accuracy = figure.subplots(1, 3, width_ratios=(1.2, 1.5, 1))
    _plot_bits(bits, comparison.ledger)
    _plot_sizes(sizes, comparison.ledger)
    _plot_metric(accuracy, comparison)
    for axes in (bits, sizes, accuracy):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, format="png")


# --- tables -------------------------------------------------------------------------------------


def _ledger_table(ledger: Ledger) -> Table:
    by_degree = any(row.degrees for row in ledger.rows)
    names = _short_names(ledger)
    table = Table(title="Bytes of features and attention", padding=(0, 0))
    table.add_column("layer", overflow="fold")
    table.add_column("of", no_wrap=True)
    if by_degree:
        table.add_column("degrees", justify="right", no_wrap=True)
    for name in ("rows", "width", "bits", "fp32", "lossless", "stored", "saving"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in ledger.rows:
        saving = row.bytes_fp32 / row.bytes_real if row.bytes_real else 1.0
        cells = [names[row.site], row.component, *([row.degrees] if by_degree else [])]
        cells += [f"{row.rows:,}", f"{row.width:,}", str(row.bits)]
        cells += [_size(b) for b in (row.bytes_fp32, row.bytes_lossless, row.bytes_real)]
        table.add_row(*cells, f"{saving:.1f}×")
    table.add_section()
    total = ["all", "", *([""] if by_degree else []), "", "", f"{ledger.average_bits:.2f}"]
    sizes = [_size(b) for b in (ledger.bytes_fp32, ledger.bytes_lossless, ledger.bytes_real)]
    table.add_row(*total, *sizes, f"{ledger.saving_real:.1f}×", style="bold")
    table.caption = (
        f"SGQuant's count, features alone and without ranges: {ledger.saving_paper_count:.1f}×"
    )
    return table


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 999.5:
            digits = 0 if unit == "B" or num_bytes >= 99.95 else 1
            return f"{num_bytes:.{digits}f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


# --- pictures -----------------------------------------------------------------------------------


def _plot_bits(axes: Axes, ledger: Ledger) -> None:
    names = _short_names(ledger)
    labels = [
        f"{names[row.site]} {row.component}" + (f", degree {row.degrees}" if row.degrees else "")
        for row in ledger.rows
    ]
    bits = [row.bits for row in ledger.rows]
    places = range(len(bits))
    colors = [_FP32 if b == FULL_PRECISION else _STORED for b in bits]
    # Untouched sites would dwarf the rest: their bar ends at the edge, with the number beside it.
    axes.barh(places, [min(b, 8) for b in bits], color=colors)
    for place, value in zip(places, bits, strict=True):
        axes.text(min(value, 8) + 0.15, place, str(value), va="center")
    axes.set(yticks=list(places), yticklabels=labels, xlim=(0, 9), xlabel="bits")
    axes.set_title(f"Bits: {ledger.average_bits:.2f} a feature")
    axes.invert_yaxis()


def _plot_sizes(axes: Axes, ledger: Ledger) -> None:
    names = _short_names(ledger)
    sizes: dict[str, list[int]] = {}
    for row in ledger.rows:
        total = sizes.setdefault(f"{names[row.site]}\n{row.component}", [0, 0, 0])
        for k, value in enumerate((row.bytes_fp32, row.bytes_lossless, row.bytes_real)):
            total[k] += value
    sizes["all"] = [ledger.bytes_fp32, ledger.bytes_lossless, ledger.bytes_real]
    series = ("fp32", _FP32), ("best lossless", _LOSSLESS), ("stored", _STORED)
    for k, (name, color) in enumerate(series):
        places = [place + 0.27 * (k - 1) for place in range(len(sizes))]
        values = [of_site[k] for of_site in sizes.values()]
        bars = axes.barh(places, values, height=0.25, label=name, color=color)
        axes.bar_label(bars, [_size(v) for v in values], fontsize=7, padding=2)
    title = f"Bytes: {ledger.saving_real:.1f}× less"
    axes.set(xscale="log", title=title, yticks=range(len(sizes)), yticklabels=list(sizes))
    axes.xaxis.set_major_formatter(lambda value, _: _size(value))
    axes.set_xlim(right=max(map(max, sizes.values())) * 4)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)


def _plot_metric(axes: Axes, comparison: Comparison) -> None:
    for result in comparison.results:
        pair = [result.full_precision, result.quantized]
        axes.plot([0, 1], pair, color="#c9ced6", marker="o", markersize=3, linewidth=1, zorder=1)
    for place, (name, color) in enumerate((("full_precision", _LOSSLESS), ("quantized", _STORED))):
        interval = getattr(comparison, name)
        axes.errorbar(
            [place], [interval.mean], [interval.ci95],
            fmt="o", color=color, capsize=6, markersize=8, linewidth=2, zorder=2,
        )  # fmt: skip
    delta = comparison.delta
    axes.set(
        xticks=[0, 1],
        xticklabels=["full precision", "quantized"],
        xlim=(-0.5, 1.5),
        ylabel=comparison.metric,
        title=f"Difference {delta.mean:+.4f} ± {delta.ci95:.4f}",
    )


def _short_names(ledger: Ledger) -> dict[str, str]:
    """Names of the sites without the attribute that holds them all: ``convs.0``, not ``model.``."""
    sites = {row.site for row in ledger.rows}
    roots = {site.partition(".")[0] for site in sites}
    nested = len(sites) > 1 and all(site.count(".") for site in sites)
    start = f"{roots.pop()}." if nested and len(roots) == 1 else ""
    return {site: site.removeprefix(start) for site in sites}
