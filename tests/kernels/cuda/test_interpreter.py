"""Triton's kernels, run by its interpreter: they give what the reference gives."""

import pytest

from tests.kernels.cuda.cases import OPERATIONS
from tests.kernels.cuda.processes import run_cases


@pytest.mark.parametrize("operation", OPERATIONS)
def test_interpreted_kernels_agree_with_the_reference(operation):
    done = run_cases("interpret", operation, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
