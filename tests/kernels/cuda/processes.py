"""Processes that know from the start how Triton is to run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run_cases(how, operation, **environment):
    """``cases.py`` in a process of its own; skips where there is no Triton."""
    pytest.importorskip("triton", reason="Triton is not installed: the extra `cuda` brings it.")
    return subprocess.run(
        [sys.executable, "-m", "tests.kernels.cuda.cases", how, operation],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=1200,
    )
