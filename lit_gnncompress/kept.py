"""What is worked out of a tensor once, and kept while the tensor lives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

T = TypeVar("T")

_KEPT = WeakIdKeyDictionary()  # of each owner: its version, and what was worked out at that one


def kept(owner: Any, key: Hashable, make: Callable[[], T]) -> T:
    """What ``make`` returns, which is called once for each key and version of ``owner``.

    Args:
        owner: A tensor, or another object that is never changed. What is kept must not refer to it.
        key: Tells apart what is worked out of the same owner: begin it with a name of its own.
        make: Works it out, without gradients of its own and outside of inference mode, as training
            may need the result, too.
    """
    if isinstance(owner, Tensor) and owner.is_inference():  # writes to it are not counted
        return make()
    version = owner._version if isinstance(owner, Tensor) else 0
    known = _KEPT.get(owner)
    if known is None or known[0] != version:
        known = _KEPT[owner] = (version, {})
    values: dict[Hashable, Any] = known[1]
    if key not in values:
        with torch.inference_mode(False):
            values[key] = make()
    return values[key]
