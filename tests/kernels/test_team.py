import gc
import threading
import weakref

import numpy as np
import pytest
from numba import njit

from lit_gnncompress.kernels.cpu import team
from lit_gnncompress.kernels.cpu.team import share

SPANS = [(first, first + 10) for first in range(0, 1000, 10)]


@njit(nogil=True)
def _work(first, last, out, x, pair, factor):
    for row in range(first, last):
        if factor < 0:
            raise ValueError("a factor below zero")
        out[row] += factor * (1 if x is None else x[row]) + pair[0][row] + pair[1]


@njit(nogil=True)
def _gives_something(first, last, out):
    return out[first]


@pytest.fixture(params=[True, False], ids=["OpenMP", "threads"])
def openmp(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(team, "_openmp", lambda: None)
    elif team._openmp() is None:
        pytest.skip("torch has no OpenMP of GNU's here")
    return request.param


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_row_once(threads, openmp):
    x, y, other = (np.random.default_rng(seed).random(1000) for seed in range(3))
    out = np.zeros(1000)
    for args, expected in (
        ((x, (y, 3), 2.0), 2 * x + y + 3),
        ((None, (y, 3), 2.0), 2 + y + 3),  # other kinds of arguments are other code
        ((None, (y, 3.5), 2), 2 + y + 3.5),
        ((x[::-1], (other.astype(np.float32), 3), 2), 2 * x[::-1] + other.astype(np.float32) + 3),
    ):
        out[:] = 0
        share(_work, SPANS, threads, out, *args)
        np.testing.assert_allclose(out, expected)
        share(_work, SPANS[:1], threads, out, *args)
        np.testing.assert_allclose(out[:10], 2 * expected[:10])


def test_what_a_kernel_raises(openmp):
    out = np.zeros(1000)
    with pytest.raises(ValueError, match="a factor below zero"):
        share(_work, SPANS, 2, out, None, (out, 0), -1.0)


def test_any_function_of_python(openmp):
    rows, lock = [], threading.Lock()

    def work(first, last, step):
        with lock:
            rows.extend(range(first, last, step))

    share(work, SPANS, 3, 2)
    assert sorted(rows) == list(range(0, 1000, 2))


def test_kernels_have_no_results(openmp):
    if openmp:
        with pytest.raises(TypeError, match="returns float64"):
            share(_gives_something, SPANS, 2, np.zeros(1000))


def test_threads_keep_no_reference(openmp):
    def worked_on():
        out, x = np.zeros(1000), np.ones(1000)
        share(_work, SPANS, 3, out, x, (x, 0), 1.0)
        return weakref.ref(x)

    known = worked_on()
    gc.collect()
    assert known() is None
