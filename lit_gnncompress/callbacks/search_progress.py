"""The progress bar of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lit_gnncompress.search.search import Search


@contextmanager
def search_progress(trainer: Trainer, trials: int) -> Iterator[Callable[[Search], None]]:
    """One bar for all trials, with the best so far; where the Trainer shows bars, on rank 0.

    Args:
        trainer: The outer Trainer.
        trials: Trials at most.
    """
    shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
    columns = (
        TextColumn("Bit search"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    # A console of its own: the Trainer's bar may still be on that of all others.
    with Progress(*columns, console=Console(), disable=not shown) as progress:
        task = progress.add_task("", total=trials)

        def show(search: Search) -> None:
            best = search.best
            text = "nothing within bounds yet"
            if best is not None:
                text = f"best {best.saving:.1f}×, drop {best.drop:.4f}"
            progress.update(task, completed=len(search.trials), description=text)

        yield show
        progress.update(task, total=progress.tasks[task].completed)  # it may end early
