"""What a person looks at after a search: a table, and the trials as JSON, CSV and a picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from lit_gnncompress.files import replacing
from lit_gnncompress.needed import needed
from lit_gnncompress.plan import FULL_PRECISION
from lit_gnncompress.search.search import SearchResult
from lit_gnncompress.search.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = {
    "uniform": "#4f86b5",
    "recipe": "#3a9d6e",
    "scan": "#a8b3bf",
    "random": "#c9a227",
    "model": "#d1603d",
}
_LABELS = {
    "uniform": "uniform",
    "recipe": "by hand",
    "scan": "sensitivity scan",
    "random": "random",
    "model": "cost model",
}
_FRONT, _BOUND = "#7d4b8a", "#5b6470"
_MOST_SITES = 24  # of which the picture still has room to tell the bits
_FIELDS = (
    "number", "origin", "measured", "finetuned", "drop", "saving", "bytes", "diverged", "seconds",
)  # fmt: skip


def print_search(
    result: SearchResult,
    monitor: str = "score",
    written: Iterable[Path] = (),
    console: Console | None = None,
) -> None:
    """Prints the best plan by site, what it saves and what it costs.

    Args:
        result: The search.
        monitor: Name of the score.
        written: Files of the report.
        console: Where to.
    """
    console = console or Console()
    best = result.best
    if best is None:
        console.print(
            f"Bit search: none of {len(result.trials)} plans is within "
            f"max_drop={result.max_drop:g}."
        )
    else:
        table = Table(title=f"Best of {len(result.trials)} plans", padding=(0, 1))
        for name, justify in (("layer", "left"), ("of", "left"), ("bits", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for site, bits in best.plan.resolve([size.site for size in result.space.sites]).items():
            spent = bits[:1] if len(set(bits)) == 1 else bits
            table.add_row(site.name, site.component, " / ".join(map(str, spent)))
        counted = "paper's count" if result.space.count == "paper" else "all bytes"
        table.caption = (
            f"{best.saving:.1f}× ({counted}, {best.bytes:,} bytes), {monitor} "
            f"{best.accuracy:.4f} from {result.baseline:.4f}"
        )
        console.print(table)
    paths = ", ".join(str(path) for path in written)
    if paths:
        console.print(f"Written: {paths}", soft_wrap=True)


def write_search_report(
    result: SearchResult, folder: str | Path, random: SearchResult | None = None
) -> tuple[Path, Path, Path]:
    """Writes ``search.json``, ``trials.csv`` and ``search.png`` into ``folder``.

    Each file is complete or not there.

    Args:
        result: The search.
        folder: Is made if need be.
        random: Random search over the same space, to compare with.

    Returns:
        The three paths.
    """
    text, table, picture = (Path(folder) / f for f in ("search.json", "trials.csv", "search.png"))
    document = result.to_dict() | ({} if random is None else {"random": random.to_dict()})
    with replacing(text) as unfinished:
        unfinished.write_text(json.dumps(document, indent=1), encoding="utf-8")
    with replacing(table) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*_FIELDS, *(dimension.name for dimension in result.space.dimensions)])
        for trial in result.trials:
            writer.writerow([*(getattr(trial, name) for name in _FIELDS), *trial.point])
    with replacing(picture) as unfinished:
        plot_search(result, unfinished, random)
    return text, table, picture


def plot_search(result: SearchResult, path: str | Path, random: SearchResult | None = None) -> None:
    """Draws saving against score with the Pareto front, the best so far, and its bits, as PNG."""
    with needed("matplotlib", by="The plot of a report"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    front, progress, bits = figure.subplots(1, 3, width_ratios=(1.35, 1.1, 1.1))
    _plot_front(front, result, random)
    _plot_progress(progress, result, random)
    _plot_bits(bits, result)
    for axes in (front, progress, bits):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, format="png")


def pareto_front(trials: Iterable[Trial]) -> list[Trial]:
    """Trials that no other one beats in both saving and drop, from the largest saving down."""
    front: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (-t.saving, t.drop)):
        if not front or trial.drop < front[-1].drop:
            front.append(trial)
    return front


def best_so_far(result: SearchResult) -> list[float]:
    """The largest saving within the bound after each trial; 1 before there is any."""
    savings: list[float] = []
    for trial in result.trials:
        within = trial.drop <= result.max_drop + 1e-9
        savings.append(max([1.0, *savings[-1:], *([trial.saving] if within else [])]))
    return savings


# --- panels -------------------------------------------------------------------------------------


def _plot_front(axes: Axes, result: SearchResult, random: SearchResult | None) -> None:
    if random is not None:
        _scatter(axes, random.trials, result, color="#dcdfe4", label="random search", size=18)
    for origin, color in _COLORS.items():
        trials = [trial for trial in result.trials if trial.origin == origin]
        if trials:
            _scatter(axes, trials, result, color=color, label=_LABELS[origin], size=30)
    front = pareto_front(result.trials)
    axes.plot(
        [trial.saving for trial in front],
        [_shown_drop(trial, result) for trial in front],
        color=_FRONT, linewidth=1.2, drawstyle="steps-post", zorder=1, label="Pareto front",
    )  # fmt: skip
    bound = result.max_drop
    axes.axhline(-bound, color=_BOUND, linestyle="--", linewidth=1, label=f"max_drop {bound:g}")
    if result.best is not None:
        axes.scatter(
            [result.best.saving], [_shown_drop(result.best, result)],
            s=190, facecolors="none", edgecolors="black", linewidths=1.5, zorder=4, label="best",
        )  # fmt: skip
    savings = [trial.saving for trial in result.trials]
    axes.set(xlabel="saving", ylabel="score − full precision")
    axes.set_title("Saving against score")
    if savings and max(savings) > 4 * min(savings):
        axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.margins(0.06)
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def _scatter(
    axes: Axes,
    trials: Sequence[Trial],
    result: SearchResult,
    color: str,
    label: str,
    size: float,
) -> None:
    axes.scatter(
        [trial.saving for trial in trials],
        [_shown_drop(trial, result) for trial in trials],
        s=size, color=color, label=label, zorder=2, linewidths=0, alpha=0.9,
    )  # fmt: skip


def _shown_drop(trial: Trial, result: SearchResult) -> float:
    """Minus the drop, not below the edge: plans that ruin the model would press the rest flat."""
    return max(-trial.drop, -_deepest(result))


def _deepest(result: SearchResult) -> float:
    return max(10 * result.max_drop, 0.02 * abs(result.baseline), 1e-6)


def _plot_progress(axes: Axes, result: SearchResult, random: SearchResult | None) -> None:
    if random is not None:
        axes.step(
            range(1, len(random.trials) + 1), best_so_far(random), where="post",
            color="#a8b3bf", linewidth=2, label="random search",
        )  # fmt: skip
    savings = best_so_far(result)
    places = range(1, len(savings) + 1)
    axes.step(places, savings, where="post", color=_COLORS["model"], linewidth=2, label="search")
    recipe = [trial for trial in result.trials if trial.origin == "recipe"]
    if recipe:
        axes.axhline(
            recipe[0].saving, color=_COLORS["recipe"], linestyle=":", linewidth=1.2,
            label=f"by hand, {recipe[0].saving:.1f}×",
        )  # fmt: skip
    first = next((t.number for t in result.trials if t.origin == "model"), None)
    if first is not None:
        axes.axvspan(0.5, first + 0.5, color="#f2f3f5", zorder=0)
        axes.annotate(
            "start", (0.8, 0.01), xycoords=("data", "axes fraction"), fontsize=8, color=_BOUND,
        )  # fmt: skip
    axes.set(xlabel="plans measured", ylabel="largest saving within max_drop", ylim=(0, None))
    axes.set_xlim(0.5, max(len(savings), 2))
    best = result.best
    axes.set_title("Best so far" + ("" if best is None else f": {best.saving:.1f}×"))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    if axes.get_legend_handles_labels()[0][1:]:
        _legend_below(axes)


def _plot_bits(axes: Axes, result: SearchResult) -> None:
    best = result.best
    if best is None:
        axes.set_title("No plan within max_drop")
        axes.set_axis_off()
        return
    table = best.plan.resolve([size.site for size in result.space.sites])
    sites = list(table)[:_MOST_SITES]
    columns = max(len(table[site]) for site in sites)
    grid = [[table[site][min(b, len(table[site]) - 1)] for b in range(columns)] for site in sites]
    shades = [[min(bits, 8) for bits in row] for row in grid]
    axes.imshow(shades, cmap="OrRd", vmin=0, vmax=11, aspect="auto")
    axes.set_box_aspect(min(1.0, 0.17 * (len(sites) + 1)))
    for x in range(1, columns):
        axes.axvline(x - 0.5, color="white", linewidth=2)
    for y in range(1, len(sites)):
        axes.axhline(y - 0.5, color="white", linewidth=2)
    for y, row in enumerate(grid):
        for x, bits in enumerate(row):
            axes.text(
                x, y, "fp32" if bits == FULL_PRECISION else str(bits), ha="center", va="center"
            )
    start = _common_start([site.name for site in sites])
    names = [f"{site.name.removeprefix(start)} {site.component}" for site in sites]
    axes.set(yticks=range(len(sites)), yticklabels=names, xticks=range(columns))
    axes.set_xticklabels(_bucket_names(best, columns))
    axes.set_xlabel("degree" if columns > 1 else "")
    more = len(table) - len(sites)
    axes.set_title("Bits of the best plan" + (f" ({more} more sites)" if more else ""))
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _bucket_names(best: Trial, columns: int) -> list[str]:
    if columns == 1:
        return ["all nodes"]
    splits = best.plan.degree_splits
    if not splits:
        ends = [f"{100 * q:g} %" for q in best.plan.degree_quantiles]
        return [f"≤ {end}" for end in ends] + [f"> {ends[-1]}"]
    starts = [0, *splits]
    names = [f"{low}–{high - 1}" for low, high in zip(starts, splits, strict=False)]
    return [*names, f"{splits[-1]}+"]


def _common_start(names: Sequence[str]) -> str:
    """The attribute that holds all layers, with its dot, where they are all in one."""
    roots = {name.partition(".")[0] for name in names}
    return f"{roots.pop()}." if len(roots) == 1 and all("." in name for name in names) else ""
