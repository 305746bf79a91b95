"""Calls of a layer: a forward pass may call it more than once, each time with other features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lit_gnncompress.quantization.context import GraphContext, Seen


class Call:
    """One call of a layer in a forward pass.

    Attributes:
        number: How many calls of the same layer came before it in the pass.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._seen: list[Seen] | Callable[[], list[Seen]] = []

    @property
    def seen(self) -> list[Seen]:
        """What passed; settable, also to a function that works it out when it is looked at."""
        if callable(self._seen):
            self._seen = self._seen()
        return self._seen

    @seen.setter
    def seen(self, seen: list[Seen] | Callable[[], list[Seen]]) -> None:
        self._seen = seen


class Calls:
    """The calls of one site in the step at hand, or in the latest that it took part in.

    Without gradients those of a pass: nothing of the passes before it has to be kept.

    Args:
        context: Knows where steps and passes begin.
    """

    def __init__(self, context: GraphContext) -> None:
        self._context = context
        self._step, self._pass, self._number = -1, -1, 0
        self._calls: list[Call] = []

    def begin(self) -> Call:
        """A new call.

        Compiled code cannot tell where a pass begins: there, each call is taken as a step.
        """
        if torch.compiler.is_compiling():
            self._calls = [Call(0)]
            return self._calls[0]
        step, number = self._context.step_and_pass()
        is_new = number != self._pass
        if step != self._step or (is_new and not torch.is_grad_enabled()):
            self._calls = []
        self._number = 0 if is_new else self._number + 1
        self._step, self._pass = step, number
        self._calls.append(Call(self._number))
        return self._calls[-1]

    @property
    def seen(self) -> list[Seen]:
        """What passed in all calls, in their order."""
        return [seen for call in self._calls for seen in call.seen]

    def __getstate__(self) -> dict[str, Any]:
        # Features are not part of a model.
        return self.__dict__ | {"_step": -1, "_pass": -1, "_calls": []}
