"""Long jobs are killed at random moments, and go on to the same end.

``GNNCOMPRESS_KILLS`` sets how many kills there are in all.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kills.jobs import JOBS

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("GNNCOMPRESS_KILLS", 25))
ONE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"], "1"
)
ENVIRONMENT = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


class Server:
    """Starts jobs in new processes, see ``tests/kills/server.py``."""

    def __init__(self, folder):
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.kills.server", str(folder)],
                cwd=ROOT, env=ENVIRONMENT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._answer() == "ready\n"

    def run(self, job, folder, **kill):
        """Runs a job to its end, or until it is killed."""
        request = {"job": job, "folder": str(folder), **kill}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        done = json.loads(self._answer())
        assert done["killed"] or done["code"] == 0, (folder / "log").read_text()[-3000:]
        return done

    def _answer(self):
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        return line

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


class Whole:
    """An uninterrupted run, and copies of what it began with."""

    def __init__(self, name, server, folder):
        self.job, self._start = JOBS[name], folder / "start"
        self._start.mkdir()
        self.job.prepare(self._start)
        first = self.copy(folder / "whole")
        done = server.run(name, first)
        self.seconds, self.events = done["seconds"], done["events"]
        self.end = self.job.end(first)
        self.job.kept(first)

    def copy(self, folder):
        return shutil.copytree(self._start, folder)

    def moment(self, draw):
        """When to kill: at any time, or where a file is changed, which takes little of the time."""
        if draw.random() < 0.5:
            return {"after": draw.uniform(0, 1.1) * self.seconds}
        at = {"at": draw.randint(1, self.events)}
        return at if draw.random() < 0.5 else at | {"delay": 10 ** draw.uniform(-4, -1.7)}


def goes_on(job, folder, before):
    """What is kept after a kill: nothing is damaged or lost."""
    kept = job.kept(folder)
    assert kept[: len(before)] == before
    return kept


@pytest.mark.parametrize("name", JOBS)
def test_a_killed_job_ends_like_the_whole(name, server, tmp_path):
    draw = random.Random(name)
    whole = Whole(name, server, tmp_path)
    wanted = -(-KILLS // len(JOBS))
    killed = by_time = rounds = 0
    while killed < wanted:
        folder = whole.copy(tmp_path / f"round{rounds}")
        rounds += 1
        assert rounds <= 20 + 3 * wanted
        kept = []
        for each in range(min(draw.randint(1, 4), wanted - killed)):
            kill = whole.moment(draw)
            done = server.run(name, folder, **kill)
            kept = goes_on(whole.job, folder, kept)
            if not done["killed"]:
                whole.seconds = whole.seconds if each else done["seconds"]  # of a busy machine
                break
            killed += 1
            by_time += "after" in kill
        server.run(name, folder)
        goes_on(whole.job, folder, kept)
        assert whole.job.end(folder) == whole.end
        shutil.rmtree(folder)
    print(f"{name}: {killed} kills in {rounds} rounds, {by_time} of them at any moment")


def test_a_process_is_killed_while_it_imports(server, tmp_path):
    draw, whole = random.Random(0), Whole("pack", server, tmp_path)
    folder, seconds, killed = whole.copy(tmp_path / "killed"), 5.0, 0
    while killed < -(-KILLS // 25):
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.kills.jobs", "pack", str(folder)],
                cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log,
            )  # fmt: skip
        begin = time.monotonic()
        try:
            process.wait(draw.uniform(0, seconds))
            seconds = time.monotonic() - begin
        except subprocess.TimeoutExpired:
            process.kill()
        killed += process.wait() == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL), (folder / "log").read_text()[-3000:]
        whole.job.kept(folder)
    server.run("pack", folder)
    assert whole.job.end(folder) == whole.end
    print(f"pack: {killed} kills while it imports")
