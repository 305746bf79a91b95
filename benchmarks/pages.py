"""Writes the tables of README and docs anew from what was measured: ``python -m benchmarks.pages``.

A table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``, where the name is one of
:data:`SUMMARIES`, or ``all of BENCHMARK`` for its whole table.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

from benchmarks.__main__ import NAMES
from benchmarks.intervals import plus_minus
from benchmarks.node_tables import FULL, GROUPS, MAIN
from benchmarks.output import Output, Row
from benchmarks.table3 import PAPER
from lit_gnncompress.files import replacing

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")

_SECTION = re.compile(r"<!-- (?P<name>[^/\n][^\n]*?) -->\n(?P<text>.*?)<!-- /(?P=name) -->\n", re.S)


def filled(text: str) -> str:
    """A page with the tables that its marks name.

    Args:
        text: Markdown.

    Raises:
        ValueError: A mark that names no table.
    """
    return _SECTION.sub(lambda found: _section(found["name"]), text)


def _section(name: str) -> str:
    benchmark = name.removeprefix("all of ")
    if name in SUMMARIES:
        text = SUMMARIES[name]()
    elif benchmark != name and benchmark in NAMES:
        text = _whole(benchmark)
    else:
        known = ", ".join([*SUMMARIES, *(f"all of {benchmark}" for benchmark in NAMES)])
        raise ValueError(f"<!-- {name} -->: known are {known}.")
    return f"<!-- {name} -->\n{text}\n<!-- /{name} -->\n"


def _whole(benchmark: str) -> str:
    path = RESULTS / f"{benchmark}.json"
    if not path.exists():
        return f"Not measured: `python -m benchmarks {benchmark}`."
    module = importlib.import_module(f"benchmarks.{benchmark}")
    return Output(benchmark, module.table, path).markdown().rstrip("\n")


def _rows(benchmark: str) -> list[Row]:
    return json.loads((RESULTS / f"{benchmark}.json").read_text(encoding="utf-8"))["rows"]


def _table(header: str, lines: list[str]) -> str:
    columns = header.count("|") - 1
    return "\n".join([header, "|" + "---|" * columns, *lines])


def _memory() -> str:
    peaks = {(r["dataset"], r["model"], r["what"]): r for r in _rows("memory")}
    ratios = {"inference": "time_ratio", "training": "time_ratio_compressed"}
    faster = {
        (r["dataset"], r["model"], r["threads"], benchmark): f"{r[ratio]:.1f}×"
        for benchmark, ratio in ratios.items()
        for r in _rows(benchmark)
    }
    lines = []
    for (dataset, model, what), row in peaks.items():
        if what != "inference":
            continue
        step = peaks[dataset, model, "training step"]
        times = [
            " / ".join(faster[dataset, model, threads, benchmark] for threads in (1, 2))
            for benchmark in ratios
        ]
        lines.append(
            f"| {dataset} {model.upper()} | {row['peak_fp32'] / 1e6:.0f} → "
            f"{row['peak_packed'] / 1e6:.1f} MB, **{row['ratio']:.0f}×** "
            f"| {step['peak_fp32'] / 1e6:.0f} → {step['peak_packed'] / 1e6:.1f} MB, "
            f"{step['ratio']:.1f}× | {times[0]} | {times[1]} |"
        )
    return _table(
        "| | tensor peak of a forward pass, fp32 → packed | of a training step "
        "| forward pass, faster than PyG's best (1 / 2 threads) | training step, faster |",
        lines,
    )


def _table3() -> str:
    rows = {(r["dataset"], r["model"]): r for r in _rows("table3") if r["plan_kind"] == "recipe"}
    lines = []
    for (dataset, model), (*_, paper) in PAPER.items():
        if (dataset, model) not in rows:
            lines.append(f"| {dataset} {model.upper()} | not measured | | | | |")
            continue
        row = rows[dataset, model]
        first = row["first_seed"]
        lines.append(
            f"| {dataset} {model.upper()} | {first}–{first + row['seeds'] - 1} "
            f"| {row['fp32_acc']:.1f} → {row['quant_acc']:.1f} % "
            f"({plus_minus(row, 'delta')}) "
            f"| {row['saving_paper_count']:.1f}× ({paper}×) | {row['saving_real']:.1f}× "
            f"| {row['bytes_fp32'] / row['bytes_lossless']:.1f}× |"
        )
    return _table(
        "| | seeds | accuracy, fp32 → quantized (Δ, 95 %) | saving, paper's count (paper) "
        "| saving, all bytes | lossless |",
        lines,
    )


def _tt_lookup() -> str:
    lines = [
        f"| {row['distribution']} | {row['forward_ratio']:.0f}× "
        f"| {row['forward_backward_ratio']:.0f}× | {1 / row['step_ratio']:.1f}× |"
        for row in _rows("tt_lookup")
    ]
    return _table(
        "| indices | forward, gather + bmm | forward + backward, gather + bmm "
        "| step with Adagrad, `EmbeddingBag(sparse=True)` |",
        lines,
    )


def _tt_gnn() -> str:
    """A line for each graph; methods as columns."""
    rows = {(r["dataset"], r["model"], r["method"]): r for r in _rows("tt_gnn")}
    methods = [method.name for method in GROUPS["core"] if method != FULL]
    by_structure = methods.index(replace(MAIN, start="structure").name)
    lines = []
    for dataset, model in dict.fromkeys((d, m) for d, m, _ in rows):
        own = [rows[key] for name in methods if (key := (dataset, model, name)) in rows]
        if len(own) < len(methods):
            continue  # still being measured
        lines.append(
            f"| {dataset} {model.upper()} | {own[0]['reduction']:.0f}× | {own[0]['full_acc']:.1f} "
            + "".join(f"| {row['tt_acc']:.1f} ({plus_minus(row, 'delta', 1)}) " for row in own)
            + f"| {plus_minus(own[by_structure], 'delta_parts', 1)} |"
        )
    return _table(
        "| | smaller | full table % | TT % (Δ, 95 %) | part vectors | full, start by structure "
        "| TT, start by structure | part vectors, start by structure "
        "| Δ of the last two |",
        lines,
    )


def _combined() -> str:
    """A line for each graph: from the full table to the last stage, where all is quantized."""
    rows = _rows("combined")
    first = {row["dataset"]: row for row in reversed(rows)}
    last = {row["dataset"]: row for row in rows}
    lines = [
        f"| {dataset} | {first[dataset]['acc']:.1f} → {row['acc']:.1f} % "
        f"({plus_minus(row, 'delta', 1)}) | {first[dataset]['bytes'] / 1e6:.1f} → "
        f"{row['bytes'] / 1e6:.1f} MB, **{row['saving']:.1f}×** |"
        for dataset, row in last.items()
    ]
    return _table("| | accuracy (Δ, 95 %) | table and features |", lines)


def _dlrm() -> str:
    order = itemgetter("preset", "optimizer", "rank", "tables_tt")
    lines = [
        f"| {row['preset'].capitalize()}{_share(row['fraction'])} | {row['tables_tt']} "
        f"| {row['rank']} | {row['optimizer']} | {row['model_reduction']:.0f}× "
        f"| {row['step_ratio']:.2f} ({' to '.join(f'{r:.2f}' for r in row['step_ratio_spread'])}) "
        f"| {row['peak_memory_ratio']:.3f} |"
        for row in sorted(_rows("dlrm"), key=order)
        if row["tables_tt"]
    ]
    return _table(
        "| | tables as tensor trains | rank | optimizer | model, smaller "
        "| step, of dense (middle half of pairs) | peak memory, of dense |",
        lines,
    )


def _share(fraction: float) -> str:
    return "" if fraction == 1 else f", {100 * fraction:.0f} % of the rows"


SUMMARIES: dict[str, Callable[[], str]] = {
    "combined": _combined,
    "dlrm": _dlrm,
    "memory": _memory,
    "table3": _table3,
    "tt_gnn": _tt_gnn,
    "tt_lookup": _tt_lookup,
}


def main() -> None:
    """Rewrites the pages."""
    for page in PAGES:
        text = filled(page.read_text(encoding="utf-8"))
        with replacing(page) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
