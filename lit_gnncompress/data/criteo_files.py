"""Criteo's files, as they are published."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lit_gnncompress.data.table_text import RowFormat

NUM_INTEGERS = 13
NUM_CATEGORIES = 26


@dataclass(frozen=True)
class CriteoFormat(RowFormat):
    """A line is a label, 13 integers and 26 hexadecimal categories, apart by tabs.

    Any but the label may be missing. As in DLRM's preprocessing of these files
    (``facebookresearch/dlrm``), what is missing counts as 0, and an integer ``x`` becomes
    ``log(1 + max(x, 0))``.
    """

    num_dense: int = NUM_INTEGERS
    num_fields: int = NUM_CATEGORIES

    @property
    def parse(self) -> Callable[..., Any]:
        """The loop over lines."""
        from lit_gnncompress.data.table_parsing import parse_criteo

        return parse_criteo

    def problem(self, line: str, labelled: bool) -> str:
        """Why a line is no row."""
        words = line.split("\t")
        names = [
            *(["label"] if labelled else []),
            *(f"I{k + 1}" for k in range(self.num_dense)),
            *(f"C{k + 1}" for k in range(self.num_fields)),
        ]
        if len(words) != len(names):
            found = "it is empty" if not line else f"{len(words)} fields"
            wanted = f"{len(names)} ({'a label, ' if labelled else ''}{self.num_dense} integers, "
            text = f"{found}, where {wanted}{self.num_fields} categories, apart by tabs) belong"
            if len(words) == len(names) + (-1 if labelled else 1):
                text += (
                    "; one without a label goes to predict_path"
                    if labelled
                    else "; one with a label goes to path"
                )
            return text
        for name, word in zip(names, words, strict=True):
            kind, pattern = _KINDS[name[0]]
            if not re.fullmatch(pattern, word):
                return f"{name} is {word[:20]!r}, which is no {kind}"
        raise AssertionError(f"{line!r} is a row")


_KINDS = {
    "l": ("label: 0 or 1", r"[01]"),
    "I": ("integer of up to 17 digits", r"-?[0-9]{1,17}|[0-9]{18}|"),
    "C": ("category of up to 8 hexadecimal digits", r"[0-9a-fA-F]{0,8}"),
}
