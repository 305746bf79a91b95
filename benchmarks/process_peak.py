"""Peak of the memory of a process and of all that it starts."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType

_EVERY_SECONDS = 0.2


class ProcessPeak:
    """Watches the memory of a process and of its descendants, as Linux counts it.

    Pages that several of them share count once, pages of files that they have mapped, too.

    Args:
        pid: Number of the process.

    Attributes:
        bytes: Most of their memory that was seen, five times a second and at the end.
    """

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> ProcessPeak:
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._watch.join()
        self.bytes = max(self.bytes, memory_of(self._pid))

    def _run(self) -> None:
        while not self._stop.is_set():
            self.bytes = max(self.bytes, memory_of(self._pid))
            self._stop.wait(_EVERY_SECONDS)


@contextmanager
def own_process() -> Iterator[tuple[ProcessPoolExecutor, int]]:
    """A fresh process that work can be submitted to, and its number."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool, pool.submit(os.getpid).result()


def memory_of(pid: int) -> int:
    """Bytes of a process and its descendants now; 0 for one that is gone."""
    folder = Path("/proc") / str(pid)
    try:
        text = (folder / "smaps_rollup").read_text()
        children = [
            int(child)
            for task in (folder / "task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = next(line for line in text.splitlines() if line.startswith("Pss:"))
    return int(own.split()[1]) * 1024 + sum(map(memory_of, children))
