"""Whole numbers that states have besides parameters and buffers, to tell modules apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class SavedNumbers:
    """Numbers of a module that cannot be seen in the shapes of its tensors.

    They are no buffer: ``to_empty`` would lose them, and a module knows its own without.

    Attributes:
        name: Their key in a state, without a prefix. No attribute of the module, for which
            ``torch.func.functional_call`` would take them.
        dtype: That of the tensor in a state.
        spoken: What they say, in a message.
    """

    name: str
    dtype: torch.dtype
    spoken: Callable[[tuple[int, ...]], str]

    def save(self, state: dict[str, Any], prefix: str, numbers: Sequence[int]) -> None:
        """Adds a module's numbers to its state."""
        state[prefix + self.name] = torch.tensor(numbers, dtype=self.dtype, device="cpu")

    def take(
        self,
        state: Mapping[str, Any],
        prefix: str,
        numbers: Sequence[int],
        strict: bool,
        missing_keys: list[str],
        error_msgs: list[str],
    ) -> dict[str, Any]:
        """Compares those of a state with a module's, and gives the state without them.

        Args:
            state: The state that is read.
            prefix: What the keys of the module begin with.
            numbers: The module's own.
            strict: Whether they must be there.
            missing_keys: Where to note that they are not.
            error_msgs: Where to note that they are others.
        """
        key = prefix + self.name
        if (found := state.get(key)) is None:
            if strict:
                missing_keys.append(key)
        elif (other := tuple(found.tolist())) != tuple(numbers):
            error_msgs.append(
                f"{key}: the state has {self.spoken(other)}, the table here "
                f"{self.spoken(tuple(numbers))}."
            )
        return {name: value for name, value in state.items() if name != key}
