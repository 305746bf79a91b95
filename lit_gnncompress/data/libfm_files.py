"""Files in the format of libFM."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_gnncompress.data.table_text import RowFormat, first_line


@dataclass(frozen=True)
class LibFMFormat(RowFormat):
    """A line is ``label index:1 index:1 …``, one index for each field, fields in the same order.

    A label is 1, or 0 or -1; indices are numbered over all fields, from 0 to below 2**32.
    """

    @property
    def parse(self) -> Callable[..., Any]:
        """The loop over lines."""
        from lit_gnncompress.data.table_parsing import parse_libfm

        return parse_libfm

    @classmethod
    def of(cls, path: Path) -> LibFMFormat:
        """The format of a file, whose first line tells the number of fields.

        Raises:
            ValueError: If the first line has no field.
        """
        num_fields = len(first_line(path).split()) - 1
        if num_fields < 1:
            raise ValueError(
                f"{path}, line 1: no field is there; a row is `label index:1 index:1 …`"
            )
        return cls(0, num_fields)

    def problem(self, line: str, labelled: bool) -> str:
        """Why a line is no row."""
        words = line.split()
        wanted = self.num_fields + labelled
        if len(words) != wanted:
            found = f"{len(words)} words" if words else "it is empty"
            label = "a label and " if labelled else ""
            return f"{found}, where {label}{self.num_fields} indices belong"
        if labelled and not re.fullmatch(r"[+-]?0*[01](\.0*)?", words[0]):
            return f"the label is {words[0][:20]!r}, which is not 1, 0 or -1"
        for number, word in enumerate(words[labelled:], start=1):
            match = re.fullmatch(r"([0-9]+):0*1(\.0*)?", word)
            if not match or int(match[1]) >= 2**32:
                return (
                    f"feature {number} is {word[:20]!r}, which is no index below 2**32 with the "
                    f"value 1, as categories have"
                )
        raise AssertionError(f"{line!r} is a row")
