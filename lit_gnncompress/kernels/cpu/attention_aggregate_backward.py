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

from lit_gnncompress.kernels.cpu.attention_kernels import (
    dropout_arguments,
    flat,
    is_dropped,
    longest,
    range_arguments,
    rounded,
)
from lit_gnncompress.kernels.cpu.attention_vector import (
    LANES,
    find_scores,
    multiply_heads,
    weigh,
)
from lit_gnncompress.kernels.cpu.coefficients import exponentiate
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
        products = np.empty(most * heads, np.float32)
        largest = np.zeros(heads + LANES, np.float32)
        sums = np.zeros(heads + LANES, np.float32)
        mean, slope_, factor, offset, of_score = np.empty((5, heads), np.float32)
        for row in range(first, last):
            begin, end = rowptr[row], rowptr[row + 1]
            edges = end - begin
            find_scores(score_src, score_dst, col, begin, end, row, slope, alpha, largest, heads)
            exponentiate(alpha, edges, largest, sums, heads)
            multiply_heads(x, grad, col, begin, end, len(col), row, products, heads, channels)
            for k in range(edges if drops else 0):
                edge = np.int64(perm[begin + k]) if len(perm) else begin + k
                for h in range(heads):
                    dropped = is_dropped(edge * heads + h, seed, threshold)
                    products[k * heads + h] *= _ZERO if dropped else kept
            at = row * range_stride
            coded = has_codes and ranges[at + 2] >= 0
            mean[:], slope_[:], factor[:], offset[:], of_score[:] = 0, 1, 1, 0, 0
            if coded and renormalize:
                factor[:] = 0
                for k in range(edges):
                    for h in range(heads):
                        value = alpha[k * heads + h] / sums[h]
                        code = rounded(value, ranges[at], ranges[at + 1], ranges[at + 2])
                        factor[h] += code
                        mean[h] += code * products[k * heads + h]
                for h in range(heads):
                    if factor[h] > 0:
                        factor[h] = slope_[h] = _ONE / factor[h]
                        mean[h] *= factor[h]
                    else:  # alike, whatever the coefficients are: a negative factor says so
                        factor[h] = -_ONE / np.float32(max(edges, 1))
                        slope_[h] = 0
            for h in range(heads):
                sums[h] = _ONE / sums[h] if edges else _ZERO
            for k in range(edges):
                for h in range(heads):
                    alpha[k * heads + h] *= sums[h]
                    offset[h] += alpha[k * heads + h] * (products[k * heads + h] - mean[h])
            for h in range(heads):
                offset[h] = (offset[h] + mean[h]) * slope_[h]
            for k in range(edges):
                source = np.int64(col[begin + k]) * heads
                for h in range(heads):
                    below = score_src[source + h] + score_dst[row * heads + h] <= 0
                    steep = slope if below else _ONE
                    product = products[k * heads + h] * slope_[h] - offset[h]
                    of_score[h] += alpha[k * heads + h] * product * steep
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
            for k in range(edges):
                target = np.int64(col[begin + k]) * heads
                for h in range(heads):
                    weights[k * heads + h] -= highest[target + h]
            largest[:heads] = 0
            exponentiate(weights, edges, largest, sums, heads)
            multiply_heads(grad, x, col, begin, end, len(col), row, products, heads, channels)
            dscore_src[row * heads : (row + 1) * heads] = 0
            for k in range(edges):
                edge = np.int64(perm[begin + k]) if len(perm) else begin + k
                target = np.int64(col[begin + k])
                at = target * range_stride
                coded = has_codes and ranges[at + 2] >= 0
                for h in range(heads):
                    place = target * heads + h
                    alpha = weights[k * heads + h] / total[place]
                    product = products[k * heads + h]
                    weight = alpha
                    if coded:
                        if factors[place] < 0:
                            weight = -factors[place]
                        else:
                            weight = rounded(alpha, ranges[at], ranges[at + 1], ranges[at + 2])
                            weight *= factors[place]
                    if drops:
                        dropped = is_dropped(edge * heads + h, seed, threshold)
                        product = _ZERO if dropped else product * kept
                        weight = _ZERO if dropped else weight * kept
                    below = score_src[row * heads + h] + score_dst[place] <= 0
                    steep = slope if below else _ONE
                    of_score = alpha * (product * slopes[place] - offsets[place]) * steep
                    dscore_src[row * heads + h] += of_score
                    weights[k * heads + h] = weight
            weigh(
                grad, none, none, 0, col, begin, end, len(col), weights, ones, dx, row,
                heads, channels, 0,
            )  # fmt: skip

    return by_source
