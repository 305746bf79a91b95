"""Means and their 95 % confidence intervals, as fields of rows and as text."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.output import Row
from lit_gnncompress.results import Interval


def interval_fields(name: str, values: Iterable[float]) -> Row:
    """The mean as ``name`` and the half-width as ``NAME_ci95``, ``None`` for a single value."""
    interval = Interval.of(values).to_dict()
    return {name: interval["mean"], f"{name}_ci95": interval["ci95"]}


def plus_minus(row: Row, name: str, digits: int = 2, sign: str = "+") -> str:
    """A mean of :func:`interval_fields` and its half-width; ``sign`` is empty for no difference."""
    return f"{row[name]:{sign}.{digits}f} ± {half_width(row[f'{name}_ci95'], digits)}"


def verdict_on_drop(row: Row, name: str, allowed: float) -> str:
    """Whether a difference of :func:`interval_fields` stays above ``-allowed``.

    Returns:
        ``"reached"`` if its interval does, ``"missed"`` if its mean does not, else ``"undecided"``.
    """
    mean, width = row[name], row[f"{name}_ci95"]
    if mean < -allowed:
        return "missed"
    return "undecided" if width is None or mean - width < -allowed else "reached"


def half_width(width: float | None, digits: int = 2) -> str:
    """A half-width, or a question mark."""
    return "?" if width is None else f"{width:.{digits}f}"
