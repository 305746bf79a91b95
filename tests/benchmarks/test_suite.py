"""All benchmarks in a row: what is done stays done, and what failed leaves nothing half-written."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES, make_parser
from benchmarks.suite import JOBS, Job, Suite

TINY = Job(
    "gather",
    ("--nodes", "500", "--rows", "64", "--width", "8", "--bits", "4", "--threads", "1"),
    times=True,
)


@pytest.fixture
def suite(tmp_path):
    return lambda size="small": Suite(size, "cpu", tmp_path / "work", tmp_path / "results")


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize("size", ["small", "full"])
def test_every_job_is_a_benchmark_with_its_arguments(suite, job, size):
    picture = ["--picture", "p.png"] if job.picture else []
    for arguments in suite(size).calls(job):
        args = make_parser().parse_args([job.name, *arguments, *picture])
        assert args.name == job.name
        assert hasattr(args, "picture") == job.picture
        assert hasattr(args, "device") == job.on_gpu


def test_every_benchmark_is_in_the_suite():
    assert {job.name for job in JOBS} == set(NAMES)


def test_a_finished_job_is_not_run_again(suite, tmp_path):
    assert suite().remaining([TINY]) == [TINY]
    suite().run(TINY)
    rows = json.loads((tmp_path / "results" / "gather.json").read_text())["rows"]
    assert [row["bits"] for row in rows] == [4]
    assert "| 4 |" in (tmp_path / "results" / "gather.md").read_text()
    assert suite().remaining([TINY]) == []
    assert suite("full").remaining([TINY]) == [TINY]


def test_a_job_that_fails_leaves_the_results_as_they_were(suite, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "gather.json").write_text("as it was")
    wrong = Job("gather", ("--bits", "99"))
    with pytest.raises(RuntimeError, match=r"gather failed with exit code 1: see .*gather\.log"):
        suite().run(wrong)
    assert (results / "gather.json").read_text() == "as it was"
    assert suite().remaining([wrong]) == [wrong]
    assert "99" in (tmp_path / "work" / "small" / "gather.log").read_text()


def test_sizes_and_devices_share_no_files(tmp_path, monkeypatch):
    called = []

    def run(command, **_):
        called.append(command[command.index("--json") + 1])
        for option in ("--json", "--markdown"):
            Path(command[command.index(option) + 1]).write_text(" ".join(command[4:-4]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    job = Job("tt_lookup", ("--rank", "8"), on_gpu=True)
    for size, device in (("small", "cpu"), ("full", "cpu"), ("full", "cuda")):
        Suite(size, device, tmp_path / "work", tmp_path / "results").run(job)
    assert len(set(called)) == 3
    results = tmp_path / "results"
    assert (results / "tt_lookup.json").read_text() == "--device cpu"
    assert (results / "tt_lookup_cuda.json").read_text() == "--device cuda"


def test_rows_of_all_calls_are_kept(suite, tmp_path):
    wide = ("--nodes", "500", "--rows", "64", "--width", "16", "--bits", "4", "--threads", "1")
    job = replace(TINY, full=TINY.small, more=(wide,))
    suite("full").run(job)
    rows = json.loads((tmp_path / "results" / "gather.json").read_text())["rows"]
    assert {row["width"] for row in rows} == {8, 16}
    assert suite("full").remaining([job]) == []
    assert suite("full").remaining([replace(job, more=())]) == [replace(job, more=())]


def test_what_is_forgotten_begins_anew_and_nothing_else(suite, tmp_path):
    other = replace(TINY, name="linear")
    (tmp_path / "work" / "small").mkdir(parents=True)
    for job in (TINY, other):
        (tmp_path / "work" / "small" / f"{job.name}.json").write_text("rows")
    finished = {job.name: suite().calls(job) for job in (TINY, other)}
    (tmp_path / "work" / "finished.json").write_text(json.dumps(finished))
    suite().forget([TINY])
    assert suite().remaining([TINY, other]) == [TINY]
    assert [path.name for path in (tmp_path / "work" / "small").iterdir()] == ["linear.json"]
