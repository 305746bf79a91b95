"""What the tests of packed features share."""

import warnings

import pytest


@pytest.fixture
def no_unpacking(request):
    """Lets operations without a packed form fail, but in tests that are marked ``unpacks``."""
    if "unpacks" in request.keywords:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*has no packed form.*")
        yield
