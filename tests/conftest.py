"""What every test has: random numbers that do not hang on the tests before it."""

import os
import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _seeded_module():
    _seed()


@pytest.fixture(autouse=True)
def _seeded():
    _seed()
    os.environ.pop("PL_GLOBAL_SEED", None)


def _seed():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
