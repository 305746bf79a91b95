"""The progress bar of an order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[str, int], None]


@contextmanager
def order_progress(num_nodes: int, show: bool) -> Iterator[Advance]:
    """A bar over all nodes, shown on terminals only; what it yields names the step and moves it.

    Args:
        num_nodes: How many nodes are there to be ordered.
        show: Whether to show it at all.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task("", total=num_nodes)

        def advance(step: str, nodes: int = 0) -> None:
            bar.update(task, description=step, advance=nodes)

        yield advance
