"""What tests of several operations need: random packed rows, sparse rows and graphs."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lit_gnncompress.kernels.layout import GAP, stream_bytes
from lit_gnncompress.kernels.reference.pack_bits import pack_bits

SIZES = [(0, 5), (1, 1), (3, 0), (7, 16), (5, 17), (33, 100), (130, 257)]
"""Rows and columns: none, one, whole groups of codes, and what remains of them."""


class PackedRows(NamedTuple):
    """Packed rows, with the codes and the floats that they stand for."""

    packed: Tensor
    lo: Tensor
    scale: Tensor
    bits: int
    width: int
    codes: Tensor

    @property
    def args(self):
        """The first five arguments of an operation on packed rows."""
        return self[:5]

    @property
    def dense(self):
        return self.codes * self.scale.unsqueeze(1) + self.lo.unsqueeze(1)


class SparseRows(NamedTuple):
    """Sparse rows, with the codes and the floats that they stand for."""

    rowptr: Tensor
    columns: Tensor
    values: Tensor | None
    lo: Tensor
    scale: Tensor
    bits: int
    width: int
    first: Tensor | None
    codes: Tensor

    @property
    def args(self):
        """The first seven arguments of an operation on sparse rows; ``first`` is the other."""
        return self[:7]

    @property
    def dense(self):
        return self.codes * self.scale.unsqueeze(1) + self.lo.unsqueeze(1)


class Edges(NamedTuple):
    """A graph by destination; ``perm`` gives each slot its edge in the caller's order."""

    rowptr: Tensor
    col: Tensor
    perm: Tensor | None
    num_sources: int

    @property
    def row(self):
        """The destination of each slot."""
        return torch.repeat_interleave(torch.arange(len(self.rowptr) - 1), self.rowptr.diff())

    @property
    def edge_index(self):
        """Sources and destinations in the caller's order."""
        edge_index = torch.stack([self.col.long(), self.row])
        if self.perm is None:
            return edge_index
        return torch.empty_like(edge_index).index_copy_(1, self.perm.long(), edge_index)


def random_ranges(rows, by_row=False, zero_lo=False, seed=0):
    """``lo`` and ``scale`` of all rows, or of each."""
    generator = torch.Generator().manual_seed(seed)
    size = rows if by_row else 1
    lo = torch.randn(size, generator=generator)
    scale = torch.rand(size, generator=generator) + 0.01
    return (torch.zeros(size) if zero_lo else lo), scale


def random_packed(rows, width, bits, by_row=False, seed=0):
    """Packed rows of random codes."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (rows, width), dtype=torch.uint8, generator=generator)
    lo, scale = random_ranges(rows, by_row, seed=seed)
    return PackedRows(pack_bits(codes, bits), lo, scale, bits, width, codes)


def random_sparse(
    rows,
    width,
    bits,
    density=0.1,
    columns=torch.uint16,
    binary=False,
    by_row=False,
    zero_lo=True,
    seed=0,
):
    """Sparse rows of random codes; ``columns=torch.uint8`` codes gaps, ``binary`` has no values."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(1, 2**bits, (rows, width), dtype=torch.uint8, generator=generator)
    codes = codes.clamp(max=1) if binary else codes
    codes *= torch.rand(rows, width, generator=generator) < density
    lo, scale = random_ranges(rows, by_row, zero_lo, seed)
    return sparse_rows_of(codes, lo, scale, bits, columns, binary)


def sparse_rows_of(codes, lo, scale, bits, columns, binary=False):
    """Sparse rows of given codes, built row by row."""
    rowptr, first, entries = [0], [0], []
    for row in codes:
        places = row.nonzero()[:, 0].tolist()
        if columns == torch.uint8:
            cursor = 0
            for place in places:
                skips, gap = divmod(place - cursor, GAP)
                entries += [GAP] * skips + [gap]
                cursor = place + 1
        else:
            entries += places
        rowptr.append(len(entries))
        first.append(first[-1] + len(places))
    stored = codes[codes > 0].view(1, -1)
    values = pack_bits(stored, bits)[0, : stream_bytes(stored.numel(), bits)]
    return SparseRows(
        torch.tensor(rowptr),
        torch.tensor(entries, dtype=torch.int64).to(columns),
        None if binary else values,
        lo,
        scale,
        bits,
        codes.size(1),
        torch.tensor(first) if columns == torch.uint8 and not binary else None,
        codes,
    )


def random_edges(num_targets, num_sources, degree=5, sorted_by_target=True, seed=0):
    """A random graph in which some destinations have no edge and one has many."""
    generator = torch.Generator().manual_seed(seed)
    degrees = torch.randint(0, 2 * degree + 1, (num_targets,), generator=generator)
    if num_targets > 2:
        degrees[1], degrees[-1] = 0, 20 * degree
    if num_sources == 0:
        degrees.zero_()
    edges = int(degrees.sum())
    rowptr = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
    col = torch.randint(0, max(1, num_sources), (edges,), generator=generator, dtype=torch.int32)
    perm = None if sorted_by_target else torch.randperm(edges, generator=generator).int()
    return Edges(rowptr, col, perm, num_sources)


def random_cores(rows, columns, ranks, dtype=torch.float32, seed=0):
    """The cores of a tensor train, whose inner ranks are given."""
    generator = torch.Generator().manual_seed(seed)
    shapes = zip(rows, (1, *ranks), columns, (*ranks, 1), strict=True)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.fixture(params=[False, True], ids=["one range", "range by row"])
def by_row(request):
    return request.param


@pytest.fixture(params=range(1, 9), ids=lambda bits: f"{bits} bits")
def bits(request):
    return request.param


def strided(tensor):
    """The same values, not contiguous."""
    wide = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.size(-1))
    wide[..., ::2] = tensor
    return wide[..., ::2]
