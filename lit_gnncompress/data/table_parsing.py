"""Loops over lines of text, compiled.

Both parse the lines that are whole in ``text[begin:end]``, or also what follows the last end of a
line where ``is_last``. They stop where the arrays of rows are full and, unless ``skip``, at a line
that is no row. They return rows, where the next line begins, lines, and lines that were no rows;
``bad`` is filled with where the first of these begins and ends, and its number from 0, if
``bad[0]`` was negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_TAB, _NEWLINE, _RETURN, _BLANK, _PLUS, _MINUS, _POINT, _COLON = (ord(c) for c in "\t\n\r +-.:")
_INT_DIGITS = 18  # fit an int64
_NO_DIGIT = 255
_HEX = np.full(256, _NO_DIGIT, np.uint8)
for _digit in range(16):
    _HEX[ord(f"{_digit:x}")] = _HEX[ord(f"{_digit:X}")] = _digit


@njit(cache=True, nogil=True)
def _end_of_line(text: Any, begin: int, end: int) -> int:
    while begin < end and text[begin] != _NEWLINE:
        begin += 1
    return begin


@njit(cache=True, nogil=True)
def parse_criteo(
    text: Any,
    begin: int,
    end: int,
    is_last: bool,
    labelled: bool,
    skip: bool,
    label: Any,
    dense: Any,
    sparse: Any,
    bad: Any,
) -> Any:
    """Lines of a label (if ``labelled``), integers, and hexadecimal categories, apart by tabs.

    Args:
        text: uint8.
        begin: Where the first line begins.
        end: Where the text ends.
        is_last: Whether nothing follows.
        labelled: Whether lines begin with a label.
        skip: Whether to go on after a line that is no row.
        label: Filled with labels, uint8, shape ``(R,)``.
        dense: Filled with log(1 + integer), of negative ones with 0, float32, shape ``(R, M)``.
        sparse: Filled with categories, uint32, shape ``(R, F)``.
        bad: int64, shape ``(3,)``.
    """
    integers, fields = dense.shape[1], 1 + dense.shape[1] + sparse.shape[1]
    rows = lines = skipped = 0
    while begin < end and rows < len(label):
        column = 0 if labelled else 1
        if not labelled:
            label[rows] = 0
        good = True
        at = begin
        while True:
            value = 0
            digits = 0
            negative = False
            while at < end and text[at] != _TAB and text[at] != _NEWLINE:
                c = text[at]
                at += 1
                if c == _RETURN and at < end and text[at] == _NEWLINE:
                    break
                digits += 1
                digit = _HEX[c]
                if column > integers:
                    good &= digit != _NO_DIGIT
                    value = value * 16 + digit
                elif c == _MINUS and digits == 1 and column > 0:
                    negative = True
                else:
                    good &= digit < 10
                    value = value * 10 + digit
            if column == 0:
                good &= digits == 1 and value < 2
                label[rows] = value
            elif column <= integers:
                good &= digits <= _INT_DIGITS and not (negative and digits == 1)
                dense[rows, column - 1] = 0.0 if negative else np.log1p(np.float64(value))
            elif column < fields:
                good &= digits <= 8
                sparse[rows, column - integers - 1] = value
            column += 1
            if at == end or text[at] == _NEWLINE:
                break
            at += 1
        if at == end and not is_last:
            break
        lines += 1
        if good and column == fields:
            rows += 1
        else:
            if bad[0] < 0:
                bad[0], bad[1], bad[2] = begin, at, lines - 1
            skipped += 1
            if not skip:
                break
        begin = min(at + 1, end)
    return rows, begin, lines, skipped


@njit(cache=True, nogil=True)
def parse_libfm(
    text: Any,
    begin: int,
    end: int,
    is_last: bool,
    labelled: bool,
    skip: bool,
    label: Any,
    dense: Any,
    sparse: Any,
    bad: Any,
) -> Any:
    """Lines of a label (if ``labelled``) and an ``index:1`` for each field, apart by blanks.

    A label above 0 is 1, another 0.

    Args:
        text: As for :func:`parse_criteo`, as the others.
        begin: Where the first line begins.
        end: Where the text ends.
        is_last: Whether nothing follows.
        labelled: Whether lines begin with a label.
        skip: Whether to go on after a line that is no row.
        label: Filled with labels, uint8, shape ``(R,)``.
        dense: Of shape ``(R, 0)``.
        sparse: Filled with indices, uint32, shape ``(R, F)``.
        bad: int64, shape ``(3,)``.
    """
    fields = sparse.shape[1]
    rows = lines = skipped = 0
    while begin < end and rows < len(label):
        stop = _end_of_line(text, begin, end)
        if stop == end and not is_last:
            break
        label[rows] = 0
        column = -1 if labelled else 0
        good = True
        at = begin
        while at < stop:
            while at < stop and (text[at] == _BLANK or text[at] == _TAB or text[at] == _RETURN):
                at += 1
            if at == stop:
                break
            index = 0
            digits = 0
            tail = 0  # what follows the colon of a feature: 1; or the sign and point of a label
            seen_colon = False
            negative = False
            after_point = False
            while at < stop and text[at] != _BLANK and text[at] != _TAB and text[at] != _RETURN:
                c = text[at]
                at += 1
                digit = _HEX[c]
                if column < 0 and digits == 0 and (c in (_MINUS, _PLUS)):
                    negative = c == _MINUS
                elif c == _COLON and column >= 0 and not seen_colon:
                    seen_colon = True
                elif c == _POINT and not after_point and (seen_colon or column < 0):
                    after_point = True
                elif digit > 9 or (after_point and digit != 0):
                    good = False
                elif seen_colon:
                    if not after_point:
                        tail = min(tail * 10 + digit, 10)
                else:
                    digits += 1
                    if not after_point:
                        index = min(index * 10 + digit, 1 << 32)
            good &= digits > 0
            if column < 0:
                good &= index < 2
                label[rows] = index == 1 and not negative
            else:
                good &= seen_colon and tail == 1 and index < 1 << 32
                if column < fields:
                    sparse[rows, column] = index
            column += 1
        lines += 1
        if good and column == fields:
            rows += 1
        else:
            if bad[0] < 0:
                bad[0], bad[1], bad[2] = begin, stop, lines - 1
            skipped += 1
            if not skip:
                break
        begin = min(stop + 1, end)
    return rows, begin, lines, skipped
