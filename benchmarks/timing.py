"""Times of several ways to do the same, measured in turns, so that a noisy machine hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

_MIN_SECONDS = 0.02  # of one measurement, by repetition


def median_seconds(ways: Mapping[str, Callable[[], Any]], rounds: int = 9) -> dict[str, float]:
    """Seconds of one call of each way, the median over ``rounds`` that take turns.

    Args:
        ways: Functions by name; each has been called once before it is timed.
        rounds: How often each is measured.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    calls = {}
    for name, way in ways.items():
        way()
        start = time.perf_counter()
        way()
        calls[name] = max(1, round(_MIN_SECONDS / max(time.perf_counter() - start, 1e-7)))
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                way()
            times[name].append((time.perf_counter() - start) / calls[name])
    return {name: statistics.median(seconds) for name, seconds in times.items()}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Lets torch, and the kernels with it, use ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
