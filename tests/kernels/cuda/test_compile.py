"""Triton's kernels compile for an H100 or H200 on a machine without one."""

import pytest

from tests.kernels.cuda.cases import OPERATIONS
from tests.kernels.cuda.processes import run_cases


@pytest.mark.parametrize("operation", OPERATIONS)
def test_kernels_of_all_bits_compile_to_sm_90(operation):
    done = run_cases("compile", operation, TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kernels compiled for sm_90" in done.stdout
