"""Triton's kernels on a GPU: they give what the reference gives, every time the same."""

import importlib

import pytest
import torch

from tests.kernels.cuda.cases import OPERATIONS, cases, failures, launch, moved

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no GPU here."),
    pytest.mark.parametrize("operation", OPERATIONS),
]


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_kernels_agree_with_the_reference(operation, large):
    found, count = failures(operation, "cuda", large)
    assert count > 0
    assert not found, "\n".join(found)


def test_kernels_are_deterministic(operation):
    for case in cases(operation, large=True):
        if operation.startswith("tt_") and "backward" in operation and not case.deterministic:
            continue  # atomics
        once, again = (launch(operation, case, "cuda") for _ in range(2))
        torch.testing.assert_close(once, again, rtol=0, atol=0)


def test_operations_find_their_kernels(operation):
    importlib.import_module(f"lit_gnncompress.kernels.{operation}")
    case = next(iter(cases(operation)))
    through_torch = getattr(torch.ops.lit_gnncompress, operation)(*moved(case.args, "cuda"))
    directly = launch(operation, case, "cuda")
    torch.testing.assert_close(through_torch, directly, rtol=0, atol=0)
