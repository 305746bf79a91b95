"""Real graphs for the tests that need one."""

import os

import pytest

from lit_gnncompress.data.folders import ROOT_VARIABLE


@pytest.fixture
def real_root():
    """The folder of raw data sets, or a skip where the machine has none."""
    root = os.environ.get(ROOT_VARIABLE)
    if not root or not os.path.isdir(root):
        pytest.skip(f"needs raw data sets: set {ROOT_VARIABLE} to their folder")
    return root
