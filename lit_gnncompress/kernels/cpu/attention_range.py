"""Numba: ``attention_range``."""

# mypy: disable-error-code="no-untyped-def,call-arg"
from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.attention_kernels import flat, longest
from lit_gnncompress.kernels.cpu.attention_vector import LANES, find_scores
from lit_gnncompress.kernels.cpu.coefficients import exponentiate, find_extremes
from lit_gnncompress.kernels.cpu.threads import over_rows


def attention_range(
    score_src: Tensor, score_dst: Tensor, rowptr: Tensor, col: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.attention_range.attention_range`."""
    rows, heads = score_dst.shape
    lo, hi = score_dst.new_empty(rows), score_dst.new_empty(rows)
    over_rows(
        _extremes(heads), flat(rowptr), heads * LANES, flat(score_src), flat(score_dst),
        flat(rowptr), flat(col), np.float32(negative_slope), flat(lo), flat(hi),
    )  # fmt: skip
    return lo, hi


@functools.cache
def _extremes(heads: int) -> Any:
    @njit(cache=True, nogil=True)
    def extremes(first, last, score_src, score_dst, rowptr, col, slope, lo, hi):
        alpha = np.empty(longest(rowptr, first, last) * heads + LANES, np.float32)
        largest = np.zeros(heads + LANES, np.float32)
        sums, least, most = np.zeros((3, heads + LANES), np.float32)
        for row in range(first, last):
            begin, end = rowptr[row], rowptr[row + 1]
            find_scores(score_src, score_dst, col, begin, end, row, slope, alpha, largest, heads)
            exponentiate(alpha, end - begin, largest, sums, heads)
            find_extremes(alpha, end - begin, sums, least, most, heads)
            low, high = least[0], most[0]
            for h in range(1, heads):
                low = min(low, least[h])
                high = max(high, most[h])
            lo[row], hi[row] = low, high

    return extremes
