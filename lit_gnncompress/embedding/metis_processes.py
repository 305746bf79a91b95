"""All cuts of a graph, those of different parts in several processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from lit_gnncompress.embedding.metis import Block, import_pymetis
from lit_gnncompress.embedding.order_progress import Advance

Array = NDArray[np.int64]

_EDGES_FOR_PROCESSES = 2_000_000  # fewer are cut before processes have started
_TASKS = 16  # of each process: parts differ, and the last one keeps all waiting

Child = tuple[Array, int, Block]


def num_processes(num_edges: int, num_workers: int | None) -> int:
    """How many processes cut a graph; see :func:`~lit_gnncompress.embedding.hierarchical_order`."""
    if num_workers is not None:
        return num_workers
    if num_edges < _EDGES_FOR_PROCESSES:
        return 1
    from joblib import cpu_count

    return int(cpu_count())


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for files that processes share, gone afterwards."""
    with TemporaryDirectory(prefix="order-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def all_leaves(block: Block, num_workers: int, folder: Path | None, advance: Advance) -> Array:
    """The part of the last level of each node; see :meth:`Block.leaves`.

    Args:
        block: The whole graph.
        num_workers: Processes; this one alone if 1. (METIS draws from the C library's generator, of
            which a process has one, and holds Python's lock: threads would be in each other's way.)
        folder: For files that processes share; see :meth:`Adjacency.of`.
        advance: Is told of steps and finished nodes.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    import_pymetis()  # here, where the error is readable
    num_nodes = block.graph.num_nodes
    leaf = np.zeros(num_nodes, np.int64)
    parallel = Parallel(num_workers, return_as="generator", mmap_mode="c")
    try:
        advance(f"cut of {num_nodes:,} nodes into {len(block.shares):,} parts", 0)
        (part,) = parallel([delayed(block.cut)()])
        if block.num_cuts == 1:
            advance("ordered", num_nodes)
            return part
        children = block.children(part, folder)
        step = f"cuts of {len(children):,} parts"
        advance(step, 0)
        tasks = list(_batches(children, num_nodes // (num_workers * _TASKS)))
        results = parallel(delayed(_leaves)([child for *_, child in task]) for task in tasks)
        for task, found in zip(tasks, results, strict=True):
            for (nodes, first, _), leaves in zip(task, found, strict=True):
                leaf[nodes] = first + leaves
                advance(step, len(nodes))
    finally:
        if num_workers > 1:  # idle ones would wait for minutes, and the interpreter for them
            get_reusable_executor().shutdown(wait=True, kill_workers=True)
    return leaf


def _leaves(blocks: Sequence[Block]) -> list[Array]:
    return [block.leaves() for block in blocks]


def _batches(children: Sequence[Child], least: int) -> Iterator[list[Child]]:
    """Children one after the other, in lists of at least so many nodes."""
    batch: list[Child] = []
    nodes = 0
    for child in children:
        batch.append(child)
        nodes += len(child[0])
        if nodes >= least:
            yield batch
            batch, nodes = [], 0
    if batch:
        yield batch
