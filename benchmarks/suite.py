"""All benchmarks one after another: what ``make bench`` runs. It goes on where it was stopped.

A benchmark writes to a folder of its size in ``runs/bench``, and its files move to
``benchmarks/results`` once it is done: rows of an earlier measurement are replaced all together or
not at all. Those of a GPU have files of their own, ``NAME_cuda``. What times something has the
machine to itself; fits, which are measured by accuracy, run one on each core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import pages
from lit_gnncompress.files import replacing

WORK = pages.ROOT / "runs" / "bench"


@dataclass(frozen=True)
class Job:
    """A benchmark and its size.

    Attributes:
        name: Of the benchmark.
        small: Arguments with which all jobs take less than two hours on two cores.
        full: Arguments of the published tables.
        more: Arguments of further calls at full size, whose rows join those of the first.
        times: Whether it measures time, and must be alone.
        picture: Whether it draws one.
        on_gpu: Whether it measures a GPU, with ``--device cuda``.
    """

    name: str
    small: tuple[str, ...] = ()
    full: tuple[str, ...] = ()
    more: tuple[tuple[str, ...], ...] = ()
    times: bool = False
    picture: bool = False
    on_gpu: bool = False


JOBS = (
    Job("linear", small=("--outputs", "32"), times=True),
    Job("gather", small=("--width", "64"), times=True),
    Job("aggregate", small=("--width", "128"), times=True),
    Job("memory", times=True),
    Job("inference", times=True),
    Job("training", times=True),
    Job("overhead", small=("--repeats", "3"), times=True),
    Job("tt_lookup", times=True, on_gpu=True),
    Job("ordering", full=("--large",), times=True),
    Job("scale", small=("--fraction", "0.1"), times=True),
    Job("criteo_stream", small=("--rows", "1000000"), times=True),
    Job(
        "dlrm",
        small=(
            "--preset", "kaggle", "--tables-tt", "7", "--rank", "16", "--optimizer", "adagrad",
            "--fraction", "0.3",
        ),
        times=True,
    ),
    Job("table3", small=("--seeds", "2"), more=(("--plan", "searched"),)),
    Job(
        "search",
        small=("--seeds", "3", "--checkpoints", "3", "--tested", "5"),
        full=("--dataset", "CiteSeer", "--model", "gat", "--finetune"),
        # The last draws the picture that stays.
        more=(
            ("--dataset", "PubMed", "--model", "agnn", "--finetune"),
            ("--dataset", "Cora", "--model", "gcn", "--finetune"),
        ),
        picture=True,
    ),
    Job(
        "granularity", small=("--model", "gcn", "--bounds", "0", "0.005", "0.02"), picture=True
    ),
    Job(
        "activations",
        small=("--dataset", "PubMed", "--model", "gcn", "--seeds", "3"),
        more=(("--dataset", "Computers", "--model", "gat", "--seeds", "30"),),
    ),
    Job(
        "tt_gnn",
        small=("--datasets", "PubMed", "--models", "sage", "--seeds", "3"),
        full=("--groups", "core", "orders", "sweep"),
        picture=True,
    ),
    Job("combined", small=("--datasets", "PubMed", "--seeds", "3")),
    Job(
        "tt_recommender",
        small=(
            "--datasets", "MovieLens1M", "--methods", "full", "tt8-metis", "parts",
            "--seeds", "2", "--epochs", "10",
        ),
        picture=True,
    ),
    Job(
        "dlrm_quality",
        small=("--datasets", "Criteo10k", "--kinds", "tt", "hash", "--ranks", "8", "--seeds", "2"),
        picture=True,
    ),
)  # fmt: skip


class Suite:
    """Runs jobs and remembers which are done.

    Args:
        size: ``"small"`` or ``"full"``.
        device: ``"cpu"`` or ``"cuda"``.
        work: Folder of unfinished results, and of the list of finished jobs.
        results: Folder where the results of finished jobs go.
    """

    def __init__(self, size: str, device: str, work: Path = WORK, results: Path = pages.RESULTS):
        self._size, self._device, self._results = size, device, results
        self._unfinished = work / size  # rows of another size would stay beside these
        self._list = work / "finished.json"
        self._finished: dict[str, list[list[str]]] = {}
        if self._list.exists():
            self._finished = json.loads(self._list.read_text(encoding="utf-8"))

    def calls(self, job: Job) -> list[list[str]]:
        """What the job is called with, but for files, one call after another."""
        calls = [job.small] if self._size == "small" else [job.full, *job.more]
        device = ["--device", self._device] if job.on_gpu else []
        return [[*arguments, *device] for arguments in calls]

    def remaining(self, jobs: Sequence[Job]) -> list[Job]:
        """Jobs that are not done at this size."""
        return [job for job in jobs if self._finished.get(self._stem(job)) != self.calls(job)]

    def forget(self, jobs: Sequence[Job]) -> None:
        """Makes jobs begin anew; what they have measured stays in the results until then."""
        for job in jobs:
            self._finished.pop(self._stem(job), None)
            for path in self._unfinished.glob(f"{self._stem(job)}.*"):
                path.unlink()
        self._remember()

    def run(self, job: Job) -> None:
        """Runs a job in a process of its own and puts its files into the results.

        Raises:
            RuntimeError: If it fails; its log tells why.
        """
        self._unfinished.mkdir(parents=True, exist_ok=True)
        stem = self._unfinished / self._stem(job)
        files = {kind: stem.with_suffix(f".{kind}") for kind in ("json", "md", "png", "log")}
        options = ["--json", str(files["json"]), "--markdown", str(files["md"])]
        if job.picture:
            options += ["--picture", str(files["png"])]
        environment = dict(os.environ) if job.times else os.environ | {"OMP_NUM_THREADS": "1"}
        for arguments in self.calls(job):
            with files["log"].open("a", encoding="utf-8") as log:
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks", job.name, *arguments, *options],
                    cwd=pages.ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
                    check=False,
                )  # fmt: skip
            if done.returncode:
                raise RuntimeError(
                    f"{job.name} failed with exit code {done.returncode}: see {files['log']}. What "
                    f"the others measured is kept; the same command goes on."
                )
        self._results.mkdir(parents=True, exist_ok=True)
        for kind in ("json", "md", *(["png"] if job.picture else [])):
            shutil.move(files[kind], self._results / files[kind].name)
        self._finished[self._stem(job)] = self.calls(job)
        self._remember()

    def _stem(self, job: Job) -> str:
        return job.name if self._device == "cpu" else f"{job.name}_{self._device}"

    def _remember(self) -> None:
        self._list.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._list) as unfinished:
            unfinished.write_text(json.dumps(self._finished, indent=1), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is not done yet, and rewrites the pages that show it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=__doc__)
    parser.add_argument("--size", choices=("small", "full"), default="small")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: what measures a GPU"
    )
    parser.add_argument("--only", nargs="+", choices=[job.name for job in JOBS], metavar="NAME")
    parser.add_argument("--fresh", action="store_true", help="forget what these have done")
    args = parser.parse_args(arguments)
    jobs = [job for job in JOBS if args.only is None or job.name in args.only]
    if args.device == "cuda":
        jobs = [job for job in jobs if job.on_gpu]
    suite = Suite(args.size, args.device)
    if args.fresh:
        suite.forget(jobs)
    remaining = suite.remaining(jobs)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    with Progress(*columns, TimeElapsedColumn()) as progress:
        task = progress.add_task("benchmarks", total=len(jobs))
        progress.advance(task, len(jobs) - len(remaining))

        def run(job: Job) -> None:
            progress.console.print(f"{job.name} …")
            suite.run(job)
            progress.advance(task)

        for job in remaining:
            if job.times:
                run(job)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for result in [pool.submit(run, job) for job in remaining if not job.times]:
                result.result()
    pages.main()


if __name__ == "__main__":
    main()
