"""Features that come to a site as codes already."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_gnncompress.plan import FULL_PRECISION
from lit_gnncompress.quantization.context import Stored


def is_packed(x: Tensor) -> bool:
    """Whether features come as codes already."""
    return hasattr(type(x), "stored")


def stored_of(x: Any) -> tuple[Stored, ...]:
    """What packed features take."""
    return x.stored


class ExpectedBits:
    """Warns, once, where codes come in other bits than the plan's: they stay as they are.

    Args:
        name: Name of the layer that they come to.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._warned = False

    def check_none(self, x: Any) -> None:
        """Warns where codes come while quantization is off, among features of any form."""
        several = [*x.values()] if isinstance(x, Mapping) else x
        for one in several if isinstance(several, (tuple, list)) else [several]:
            if isinstance(one, Tensor) and is_packed(one):
                self._check(one, (FULL_PRECISION,), "quantization is off")

    def check(self, x: Tensor, bits: tuple[int, ...]) -> None:
        """Warns where packed features are not in these bits, which the plan gives them."""
        self._check(x, bits, f"the plan gives them {_spoken(bits)} bits")

    def _check(self, x: Tensor, expected: tuple[int, ...], wanted: str) -> None:
        if self._warned or torch.compiler.is_compiling():
            return
        bits = tuple(stored.bits for stored in stored_of(x))
        if bits == expected or len({*bits, *expected}) == 1:
            return
        self._warned = True
        warnings.warn(
            f"{self._name}: its features come packed in {_spoken(bits)} bits, but {wanted}. "
            f"They stay as they come. If an earlier fit packed them: load the data anew, call "
            f"remove() of its Quantize, or leave packed=True out there. If you did: give "
            f"{self._name} {_spoken(bits)} bits.",
            stacklevel=3,
        )


def _spoken(bits: tuple[int, ...]) -> str:
    return str(bits[0]) if len(set(bits)) == 1 else str([*bits])
