"""What the rows of ``dlrm_quality`` say."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.click_tables import NAMES
from benchmarks.intervals import half_width, interval_fields, plus_minus
from benchmarks.output import Row

ALLOWED = 0.3  # points of AUC that may be lost
GOAL = 10  # times smaller tables at which no more is to be lost
_RIVALS = ("product", "sum", "hash")


def verdicts(rows: list[Row]) -> Iterator[str]:
    """Lines of each data set, of the orders that validation prefers."""
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == dataset and row["chosen"]]
        trains = sorted(
            (row for row in own if row["kind"] == "tt"), key=lambda row: row["reduction"]
        )
        if not trains:
            continue
        yield f"- {dataset}, {trains[0]['order']} order: {_largest(trains)}"
        rivals = [_against(train, own) for train in trains]
        if text := "; ".join(filter(None, rivals)):
            yield f"- {dataset}, TT against the best other of equal size: {text}."
        for row in own:
            if row["kind"] == "tt+hot":
                yield f"- {dataset}: {_of_hot_rows(row, trains)}"


def of_size(rows: list[Row]) -> list[str]:
    """A table of what was not tested."""
    lines = [
        "Sizes and the time of a training step alone:",
        "",
        "| | method | size of rank | tables | tables smaller | model smaller | step |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['dataset']} | {NAMES[row['kind']]} | {row['rank'] or ''} "
            f"| {row['params']:,} | {row['reduction']:.1f}× | {row['model_reduction']:.1f}× "
            f"| {row['step_ratio']:.2f} |"
        )
    return lines


def _largest(trains: list[Row]) -> str:
    within = [row for row in trains if row["delta"] >= -ALLOWED]
    if not within:
        best = max(trains, key=lambda row: row["delta"])
        return (
            f"no TT within {ALLOWED} points of the full tables; the best loses "
            f"{-best['delta']:.2f} ± {half_width(best['delta_ci95'])} at {best['reduction']:.1f}×."
        )
    row = within[-1]
    reached = "reached" if row["reduction"] >= GOAL else "missed"
    return (
        f"TT within {ALLOWED} points of the full tables ({plus_minus(row, 'delta')}) "
        f"at {row['reduction']:.1f}×, rank {row['rank']}: goal of "
        f"{GOAL}× {reached}."
    )


def _against(train: Row, rows: list[Row]) -> str:
    """The difference to the rival that validation prefers, paired by seed."""
    rivals = [r for r in rows if r["kind"] in _RIVALS and r["rank"] == train["rank"]]
    if not rivals:
        return ""
    rival = max(rivals, key=lambda row: row["val_auc"])
    return (
        f"{_difference(train, rival)} to {NAMES[rival['kind']]} at {train['reduction']:.1f}× "
        f"({rival['reduction']:.1f}×)"
    )


def _of_hot_rows(row: Row, trains: list[Row]) -> str:
    train = next(each for each in trains if each["rank"] == row["rank"])
    return (
        f"rows of their own for frequent categories, beside cores of half the rank: "
        f"{_difference(row, train)} to TT alone of equal size (rank {row['rank']})."
    )


def _difference(one: Row, other: Row) -> str:
    pairs = zip(one["aucs"], other["aucs"], strict=True)
    return plus_minus(interval_fields("delta", (a - b for a, b in pairs)), "delta")
