"""Subclasses of PyG's convolutions that explainers can still see into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Explainable:
    """Mixin of a subclass of a convolution: its ``explain = True`` reaches the messages.

    PyG generates ``propagate`` for each class that is built, copied or unpickled, and falls back to
    the class's former one to explain. It takes that for handwritten, though a subclass has
    inherited its parent's generated one, which shows an explainer nothing.
    """

    def _set_jittable_templates(self, raise_on_error: bool = False) -> None:
        super()._set_jittable_templates(raise_on_error)  # type: ignore[misc]
        cls: Any = type(self)
        cls._orig_propagate = _handwritten(cls)


def _handwritten(cls: type) -> Callable[..., Any]:
    inherited = [vars(base) for base in cls.__mro__[1:]]
    names = ("_orig_propagate", "propagate")
    return next(own[name] for own in inherited for name in names if name in own)
