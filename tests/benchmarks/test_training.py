"""Training steps are timed in all forms, and the better ones are compared."""

import pytest

from benchmarks import deployed
from benchmarks.training import _row, table


def test_the_better_forms_are_compared():
    data = deployed.load("digits", None)
    row = _row("digits", "gat", deployed.build("gat", data).eval(), data, 4)
    best = {
        kind: min(row[f"ms_{kind}"], row[f"ms_{kind}_csr"])
        for kind in ("pyg", "packed", "compressed")
    }
    assert row["time_ratio"] == pytest.approx(best["pyg"] / best["packed"])
    assert row["time_ratio_compressed"] == pytest.approx(best["pyg"] / best["compressed"])
    lines = table([row | {"dataset": "digits", "model": "gat", "threads": 1}]).splitlines()
    assert lines[2].count("|") == lines[-1].count("|")
