import mmap
from pathlib import Path

import pytest
import torch

from lit_gnncompress.kernels.cpu.large_pages import empty_rows

SMAPS = Path("/proc/self/smaps")
LARGE = 40 << 20  # bytes


def asks_for_large_pages(tensor):
    """Whether the kernel was asked to back the middle of a tensor by large pages."""
    middle, inside = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in SMAPS.read_text().splitlines():
        span, _, rest = line.partition(" ")
        if not span.endswith(":"):
            begin, end = (int(place, 16) for place in span.split("-"))
            inside = begin <= middle < end
        elif inside and span == "VmFlags:":
            return "hg" in rest.split()
    raise AssertionError("no mapping holds the tensor")


@pytest.mark.parametrize(("rows", "width"), [(0, 5), (7, 0), (3, 4), (LARGE // 400, 100)])
def test_shape_and_dtype(rows, width):
    out = empty_rows(rows, width)
    assert out.shape == (rows, width)
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    assert torch.equal(out.fill_(1), torch.ones(rows, width))


@pytest.mark.skipif(
    not (hasattr(mmap, "MADV_HUGEPAGE") and Path("/sys/kernel/mm/transparent_hugepage").exists()),
    reason="the kernel has no large pages",
)
def test_large_outputs_ask_for_large_pages():
    assert asks_for_large_pages(empty_rows(LARGE // 400, 100))
