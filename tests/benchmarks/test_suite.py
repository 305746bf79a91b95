"""All benchmarks in a row: what is done stays done, and what failed leaves nothing half-written."""

import json

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
    args = make_parser().parse_args([job.name, *suite(size).arguments(job), *picture])
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
    assert "99" in (tmp_path / "work" / "gather.log").read_text()
