"""Peak of tensor memory: what torch's allocator hands out while something runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile


def tensor_peak(run: Callable[[], Any], resident: Iterable[Tensor]) -> int:
    """Bytes that ``resident`` tensors and all tensors that ``run`` makes take together at most.

    Scratch of numba's kernels (one destination's scores, a chunk's counters) is not a tensor and
    not in it.

    Args:
        run: What is measured; it should have run once before, so that nothing is cached anew.
        resident: Tensors that exist before and are needed: inputs and weights.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    changes = []
    pending = list(recorded.profiler.kineto_results.experimental_event_tree())
    while pending:
        event = pending.pop()
        pending += event.children
        if event.tag == _EventType.Allocation and event.extra_fields.device.type == "cpu":
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    held = peak = 0
    for _, change in sorted(changes):
        held += change
        peak = max(peak, held)
    return peak + sum(bytes_of(resident))


def bytes_of(tensors: Iterable[Tensor]) -> Iterable[int]:
    """Bytes of each storage among ``tensors``, counted once; of packed tensors what they keep."""
    seen = set()
    for tensor in tensors:
        if hasattr(tensor, "packed_bytes"):
            yield tensor.packed_bytes
            continue
        parts = [tensor]
        if tensor.layout == torch.sparse_csr:
            parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
        for part in parts:
            storage = part.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                yield storage.nbytes()
