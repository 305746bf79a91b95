import gzip
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.criteo_rows import write_criteo
from lit_gnncompress.data.category_rows import CategoryRule
from lit_gnncompress.data.criteo_files import CriteoFormat
from lit_gnncompress.data.table_files import TableFiles
from lit_gnncompress.data.table_sources import Sources

ROOT = Path(__file__).parents[2]
SIZES = (2000, 20, *([10] * 24))


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    path = tmp_path_factory.mktemp("criteo") / "day_0"
    write_criteo(path, 3000, SIZES)
    return path


def files(*paths, on_bad_rows="error", min_frequency=2, **parts):
    rule = CategoryRule.of(26, min_frequency, 300, 1)
    return TableFiles(Sources(paths, **parts), CriteoFormat(), rule, on_bad_rows)


def rows_of(what, folder):
    return what.rows(folder, progress=False)


def same(first, second):
    arrays = ("dense", "sparse", "label")
    assert first.num_embeddings == second.num_embeddings
    return all(np.array_equal(getattr(first, a), getattr(second, a)) for a in arrays)


def made(folder):
    return [path for path in (folder / "tables").iterdir() if path.is_dir()]


def test_arrays_are_those_of_the_text(day, tmp_path):
    rows = rows_of(files(day), tmp_path)
    lines = [line.split("\t") for line in day.read_text().splitlines()]
    assert rows.label.tolist() == [int(line[0]) for line in lines]
    dense = [[max(int(word or 0), 0) for word in line[1:14]] for line in lines]
    np.testing.assert_allclose(rows.dense, np.log1p(dense), rtol=1e-6)
    words = np.array([int(line[14] or "0", 16) for line in lines])
    for row in range(1, rows.num_embeddings[0]):
        assert len(set(words[rows.sparse[:, 0] == row])) == 1
    counts = np.unique(words, return_counts=True)[1]
    kept = min((counts >= 2).sum(), 300)
    assert rows.num_embeddings[0] == 1 + kept
    # The most frequent come first; what is rare shares row 0.
    assert np.bincount(rows.sparse[:, 0])[1:].tolist() == sorted(counts)[::-1][:kept]
    assert (len(rows), rows.num_train, rows.num_test, rows.skipped) == (3000, 3000, 0, 0)


def test_parts_follow_each_other_and_only_labelled_rows_are_counted(day, tmp_path):
    lines = day.read_text().splitlines(keepends=True)
    parts = {"a": lines[:1000], "b": lines[1000:1500], "test": lines[1500:2000]}
    parts["predict"] = [line.partition("\t")[2] for line in lines[2000:]]
    for name, part in parts.items():
        (tmp_path / name).write_bytes(gzip.compress("".join(part).encode()))
    a, b, test, predict = (tmp_path / name for name in parts)
    rows = rows_of(files(a, b, test=(test,), unlabelled=(predict,)), tmp_path / "split")
    assert (rows.num_train, rows.num_test, len(rows)) == (1500, 500, 3000)
    (tmp_path / "first").write_text("".join(lines[:2000]))
    first = rows_of(files(tmp_path / "first"), tmp_path / "first_rows")
    assert np.array_equal(rows.sparse[:2000], first.sparse)
    assert rows.num_embeddings == first.num_embeddings
    assert rows.batch(slice(1990, 2010)).label.isnan().tolist() == [False] * 10 + [True] * 10


def test_the_cache_is_used_until_something_changes(day, tmp_path, monkeypatch):
    first = rows_of(files(day), tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(TableFiles, "_make", None)
        assert same(rows_of(files(day), tmp_path), first)
    rarer = rows_of(files(day, min_frequency=5), tmp_path)
    assert rarer.num_embeddings[0] < first.num_embeddings[0]
    before = len(made(tmp_path))
    os.utime(day, ns=(1, 1))
    assert same(rows_of(files(day), tmp_path), first)
    assert len(made(tmp_path)) == before + 1


def test_a_damaged_cache_is_made_again(day, tmp_path):
    first = rows_of(files(day), tmp_path)
    dense = first.dense.copy()
    (folder,) = made(tmp_path)
    with open(folder / "dense.npy", "r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    with pytest.warns(UserWarning, match=r"made anew: dense.npy does not match its checksum"):
        again = rows_of(files(day), tmp_path)
    assert np.array_equal(again.dense, dense)


KILLED = """
import os, pathlib, signal, sys
from lit_gnncompress.data import category_loops, table_text
from tests.data import test_table_files as t

table_text.BLOCK_ROWS = 500
t.BLOCKS = 0
def kill(function):
    def one(*args):
        t.BLOCKS += 1
        if t.BLOCKS == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)
    return one
where = sys.argv[3]
if where == "reading":
    table_text.TextFile.blocks = (lambda f: lambda *a: map(kill(lambda b: b), f(*a)))(
        table_text.TextFile.blocks)
else:
    category_loops.look_up = kill(category_loops.look_up)
t.rows_of(t.files(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]))
"""


@pytest.mark.parametrize("where", ["reading", "numbering"])
def test_a_killed_process_leaves_nothing_that_is_used(where, day, tmp_path):
    command = [sys.executable, "-c", KILLED, str(day), str(tmp_path), where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = made(tmp_path)
    assert left.name.endswith(".unfinished")
    assert (left / "sparse.npy").stat().st_size > 1000 * 26 * 4  # it was on its way
    after = rows_of(files(day), tmp_path)
    assert same(after, rows_of(files(day), tmp_path / "clean"))
    assert [path.name for path in made(tmp_path)] == [left.name.removesuffix(".unfinished")]


def test_bad_rows_are_an_error_or_counted(day, tmp_path):
    path = tmp_path / "day_1"
    lines = day.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:4], "1\t2\t3\n", *lines[4:30], "\n", *lines[30:50]]))
    with pytest.raises(ValueError, match=r"day_1, line 5: 3 fields, where 40 .*'1.t2.t3'"):
        rows_of(files(path), tmp_path)
    assert not made(tmp_path)
    with pytest.warns(UserWarning, match=r"2 of 52 lines are no rows .*day_1, line 5: 3 fields"):
        rows = rows_of(files(path, on_bad_rows="skip"), tmp_path)
    assert (rows.skipped, len(rows)) == (2, 50)
    (tmp_path / "good").write_text("".join(lines[:50]))
    assert same(rows, rows_of(files(tmp_path / "good"), tmp_path))
    with pytest.raises(ValueError, match=r"day_1, line 5"):  # what was skipped is not remembered
        rows_of(files(path), tmp_path)


def test_files_without_rows_are_refused(tmp_path):
    path = tmp_path / "day"
    path.write_text("")
    with pytest.raises(ValueError, match=r"no row in .*day$"):
        rows_of(files(path), tmp_path)
    path.write_text("nothing\n")
    with pytest.raises(ValueError, match=r"no row in .*day, 1 were left out: .*line 1: 1 fields"):
        rows_of(files(path, on_bad_rows="skip"), tmp_path)


MEASURED = """
import pathlib, resource, sys
from tests.data import test_table_files as t

t.rows_of(t.files(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[3]))  # compiles
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
t.rows_of(t.files(pathlib.Path(sys.argv[2])), pathlib.Path(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in kB on Linux")
def test_memory_does_not_grow_with_the_file(day, tmp_path):
    text = day.read_bytes()
    path = tmp_path / "long"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(100):
            file.write(text)
    command = [sys.executable, "-c", MEASURED, str(day), str(path), str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=True
    )
    # 77 MB of text and 48 MB of arrays, read in pieces of 16 MB of text and 10 MB of arrays.
    assert int(done.stdout) < 45_000
