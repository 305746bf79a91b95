r"""Numba: ``attention_aggregate_backward``, once over destinations and once over sources.

With :math:`d` the product of a value with the gradient of its sum, the gradient of a score is
:math:`\alpha (d r - u)` times the slope there. The first pass finds :math:`r` and :math:`u` of
every destination and head, so that the second can follow the edges from their sources.
"""

# mypy: disable-error-code="no-untyped-def,call-arg"
from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.attention_edges import (
    drop,
    gradients_of_source,
    lower,
    sum_gradients,
)
from lit_gnncompress.kernels.cpu.attention_kernels import (
    dropout_arguments,
    flat,
    longest,
    range_arguments,
)
from lit_gnncompress.kernels.cpu.attention_vector import (
    LANES,
    find_scores,
    multiply_heads,
    weigh,
)
from lit_gnncompress.kernels.cpu.coefficients import exponentiate, scale_and_sum, sum_codes
from lit_gnncompress.kernels.cpu.threads import over_rows

_ONE = np.float32(1)
_ZERO = np.float32(0)
_SUMS = {"reassoc", "contract"}  # lets LLVM add in the lanes of a vector


def attention_aggregate_backward(
    grad: Tensor,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    rowptr: Tensor,
    col: Tensor,
    negative_slope: float,
    alpha_range: Tensor | None,
    renormalize: bool,
    perm: Tensor | None,
    dropout_p: float,
    seed: int,
    rowptr_t: Tensor,
    col_t: Tensor,
    perm_t: Tensor | None,
    row_max: Tensor,
    row_sum: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`lit_gnncompress.kernels.attention_aggregate_backward`."""
    heads = score_src.size(1)
    sizes = heads, x.size(1) // heads
    dx = x.new_empty(x.shape)
    dscore_src = score_src.new_empty(score_src.shape)
    dscore_dst, slopes, offsets, factors = score_dst.new_empty(4, *score_dst.shape).unbind()
    values, scores = (flat(grad), flat(x)), (flat(score_src), flat(score_dst))
    slope, codes = np.float32(negative_slope), range_arguments(alpha_range, renormalize)
    of_rows = flat(slopes), flat(offsets), flat(factors)
    over_rows(
        _by_target(*sizes), flat(rowptr), 2 * x.size(1), *values, *scores, flat(rowptr), flat(col),
        slope, *codes, *dropout_arguments(perm, dropout_p, seed), flat(dscore_dst), *of_rows,
    )  # fmt: skip
    over_rows(
        _by_source(*sizes), flat(rowptr_t), 2 * x.size(1), *values, *scores, flat(rowptr_t),
        flat(col_t), slope, *codes, *dropout_arguments(perm_t, dropout_p, seed), flat(row_max),
        flat(row_sum), *of_rows, flat(dx), flat(dscore_src),
    )  # fmt: skip
    return dx, dscore_src, dscore_dst


@functools.cache
def _by_target(heads: int, channels: int) -> Any:
    @njit(cache=True, nogil=True, fastmath=_SUMS)
    def by_target(
        first, last, grad, x, score_src, score_dst, rowptr, col, slope,
        has_codes, ranges, range_stride, renormalize, drops, perm, threshold, kept, seed,
        dscore_dst, slopes, offsets, factors,
    ):  # fmt: skip
        most = longest(rowptr, first, last)
        alpha = np.empty(most * heads + LANES, np.float32)
        products = np.empty(most * heads + LANES, np.float32)
        largest = np.zeros(heads + LANES, np.float32)
        sums = np.zeros(heads + LANES, np.float32)
        mean, slope_, factor, offset, of_score = np.empty((5, heads), np.float32)
        for row in range(first, last):
            begin, end = rowptr[row], rowptr[row + 1]
            edges = end - begin
            find_scores(score_src, score_dst, col, begin, end, row, slope, alpha, largest, heads)
            exponentiate(alpha, edges, largest, sums, heads)
            multiply_heads(x, grad, col, begin, end, len(col), row, products, heads, channels)
            if drops:
                drop(products, begin, end, perm, len(perm) == 0, seed, threshold, kept, heads)
            at = row * range_stride
            mean[:], slope_[:], factor[:] = 0, 1, 1
            if has_codes and renormalize and ranges[at + 2] >= 0:
                low, step, levels = ranges[at], ranges[at + 1], ranges[at + 2]
                sum_codes(
                    alpha, products, edges, sums, low, step, levels, factor, mean, heads
                )  # fmt: skip
                for h in range(heads):
                    if factor[h] > 0:
                        factor[h] = slope_[h] = _ONE / factor[h]
                        mean[h] *= factor[h]
                    else:  # alike, whatever the coefficients are: a negative factor says so
                        factor[h] = -_ONE / np.float32(max(edges, 1))
                        slope_[h] = 0
            for h in range(heads):
                sums[h] = _ONE / sums[h] if edges else _ZERO
            scale_and_sum(alpha, products, edges, sums, mean, offset, heads)
            for h in range(heads):
                offset[h] = (offset[h] + mean[h]) * slope_[h]
            sum_gradients(
                alpha, products, slope_, offset, score_src, score_dst, col, begin, end, row, slope,
                of_score, heads,
            )  # fmt: skip
            for h in range(heads):
                place = row * heads + h
                dscore_dst[place] = of_score[h]
                slopes[place], offsets[place], factors[place] = slope_[h], offset[h], factor[h]

    return by_target


@functools.cache
def _by_source(heads: int, channels: int) -> Any:
    @njit(cache=True, nogil=True, fastmath=_SUMS)
    def by_source(
        first, last, grad, x, score_src, score_dst, rowptr, col, slope,
        has_codes, ranges, range_stride, renormalize, drops, perm, threshold, kept, seed,
        highest, total, slopes, offsets, factors, dx, dscore_src,
    ):  # fmt: skip
        most = longest(rowptr, first, last)
        weights = np.empty(most * heads + LANES, np.float32)
        products = np.empty(most * heads, np.float32)
        largest = np.zeros(heads + LANES, np.float32)
        sums = np.zeros(heads + LANES, np.float32)
        ones = np.ones(heads + LANES, np.float32)
        none = np.zeros(1, np.float32)
        for row in range(first, last):
            begin, end = rowptr[row], rowptr[row + 1]
            edges = end - begin
            find_scores(score_dst, score_src, col, begin, end, row, slope, weights, largest, heads)
            lower(weights, highest, col, begin, end, heads)
            largest[:heads] = 0
            exponentiate(weights, edges, largest, sums, heads)
            multiply_heads(grad, x, col, begin, end, len(col), row, products, heads, channels)
            gradients_of_source(
                weights, products, col, begin, end, row, score_src, score_dst, slope, total,
                slopes, offsets, factors, has_codes, ranges, range_stride, drops, perm,
                len(perm) == 0, seed, threshold, kept, dscore_src, heads,
            )  # fmt: skip
            weigh(
                grad, none, none, 0, col, begin, end, len(col), weights, ones, dx, row,
                heads, channels, 0,
            )  # fmt: skip

    return by_source
