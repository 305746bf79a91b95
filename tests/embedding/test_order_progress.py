"""A bar on terminals, silence elsewhere."""

import io

import pytest
import rich.console

from lit_gnncompress.embedding import hierarchical_order
from tests.embedding.graphs import grid


@pytest.mark.parametrize(("terminal", "progress"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("method", ["metis", "community"])
def test_the_bar_is_for_terminals(monkeypatch, terminal, progress, method):
    written = io.StringIO()
    console = rich.console.Console(file=written, force_terminal=terminal, width=100)
    monkeypatch.setattr(rich.console, "Console", lambda: console)
    hierarchical_order(grid(20), 400, (6, 5, 14), method=method, progress=progress)
    text = written.getvalue()
    assert ("100%" in text) == (terminal and progress)
    assert bool(text) == (terminal and progress)
