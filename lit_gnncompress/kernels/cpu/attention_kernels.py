"""Numba: attention over the edges of a destination, for values in fp32 and packed ones.

Kernels are made for every number of heads, channels and bits, which are constants in them. What is
kept of a destination's edges is one array of coefficients, as long as its chunk's largest degree.
"""

# mypy: disable-error-code="no-untyped-def,call-arg"
from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from lit_gnncompress.kernels.cpu.attention_edges import drop
from lit_gnncompress.kernels.cpu.attention_vector import LANES, find_scores, weigh
from lit_gnncompress.kernels.cpu.coefficients import exponentiate, round_to_codes
from lit_gnncompress.kernels.cpu.large_pages import empty_rows
from lit_gnncompress.kernels.cpu.threads import over_rows

_PRODUCTS = 8  # that take as long as what there is to do for a column of a message
_ONE = np.float32(1)


def attend(
    values: Tensor,
    lo: Tensor,
    scale: Tensor,
    bits: int,
    width: int,
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
) -> tuple[Tensor, Tensor, Tensor]:
    """The forward pass; float32 values have ``bits`` 0, packed ones 1 to 8."""
    rows, heads = score_dst.shape
    out = empty_rows(rows, width)
    highest, total = torch.empty_like(score_dst), torch.empty_like(score_dst)
    over_rows(
        _forward(heads, width // heads, bits), flat(rowptr), _PRODUCTS * width,
        flat(values), flat(lo), flat(scale), int(lo.numel() > 1),
        flat(score_src), flat(score_dst), flat(rowptr), flat(col), np.float32(negative_slope),
        *range_arguments(alpha_range, renormalize), *dropout_arguments(perm, dropout_p, seed),
        flat(out), flat(highest), flat(total),
    )  # fmt: skip
    return out, highest, total


def flat(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor one after the other; a view where they lie like that."""
    return tensor.detach().numpy().ravel()


def range_arguments(alpha_range: Tensor | None, renormalize: bool) -> tuple[Any, ...]:
    """Whether there are codes, their ranges, the stride of these, and whether to renormalise."""
    if alpha_range is None:
        return False, np.empty(0, np.float32), 0, False
    return True, flat(alpha_range), 3 * int(alpha_range.size(0) > 1), renormalize


def dropout_arguments(perm: Tensor | None, p: float, seed: int) -> tuple[Any, ...]:
    """Whether to drop, edges in the caller's order, highest number dropped, factor, and seed."""
    edges = np.empty(0, np.int32) if perm is None or p == 0 else flat(perm)
    factor = 1 / (1 - p) if p < 1 else 0.0
    return p > 0, edges, np.uint32(math.ceil(p * 2**24)), np.float32(factor), seed


@njit(cache=True, nogil=True, inline="always")
def longest(rowptr, first, last):
    """Largest number of edges of the rows ``first … last - 1``."""
    edges = 0
    for row in range(first, last):
        edges = max(edges, rowptr[row + 1] - rowptr[row])
    return edges


@functools.cache
def _forward(heads: int, channels: int, bits: int) -> Any:
    width = heads * channels

    @njit(cache=True, nogil=True)
    def forward(
        first, last, values, lo, scale, each, score_src, score_dst, rowptr, col, slope,
        has_codes, ranges, range_stride, renormalize, drops, perm, threshold, kept, seed,
        out, highest, total,
    ):  # fmt: skip
        alpha = np.empty(longest(rowptr, first, last) * heads + LANES, np.float32)
        largest = np.zeros(heads + LANES, np.float32)
        sums = np.zeros(heads + LANES, np.float32)
        factor = np.zeros(heads + LANES, np.float32)
        for row in range(first, last):
            begin, end = rowptr[row], rowptr[row + 1]
            edges = end - begin
            if edges == 0:
                highest[row * heads : (row + 1) * heads] = 0
                total[row * heads : (row + 1) * heads] = 0
                out[row * width : (row + 1) * width] = 0
                continue
            find_scores(score_src, score_dst, col, begin, end, row, slope, alpha, largest, heads)
            exponentiate(alpha, edges, largest, sums, heads)
            for h in range(heads):
                highest[row * heads + h] = largest[h]
                total[row * heads + h] = sums[h]
                # PyG adds 1e-16, which no sum sees in float32: they are at least 1.
                factor[h] = _ONE / sums[h]
            at = row * range_stride
            if has_codes and ranges[at + 2] >= 0:
                low, step, levels = ranges[at], ranges[at + 1], ranges[at + 2]
                round_to_codes(alpha, edges, sums, low, step, levels, factor, heads)
                for h in range(heads):
                    if not renormalize:
                        factor[h] = _ONE
                    elif factor[h] > 0:
                        factor[h] = _ONE / factor[h]
                    else:
                        factor[h] = _ONE / np.float32(edges)
                        for k in range(edges):
                            alpha[k * heads + h] = _ONE
            if drops:
                drop(alpha, begin, end, perm, len(perm) == 0, seed, threshold, kept, heads)
            weigh(
                values, lo, scale, each, col, begin, end, len(col), alpha, factor, out, row,
                heads, channels, bits,
            )  # fmt: skip

    return forward
