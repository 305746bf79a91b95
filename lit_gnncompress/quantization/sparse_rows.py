"""Rows of a sparse matrix of features, dense only where they are read."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_gnncompress.quantization.degrees import count
from lit_gnncompress.quantization.finite import check_finite


class SparseRows:
    """Features of which few are stored, with as much of a tensor's interface as ranges need.

    ``rows[index]`` is dense, of shape ``(*index.shape, F)``; ask for few rows at a time.

    Args:
        row: Row of each entry, int64, shape ``(K,)``, ascending.
        column: Column of each entry, int64, shape ``(K,)``, ascending within a row.
        value: The entries, float32 or float64, shape ``(K,)``.
        shape: Rows and columns, ``(N, F)``.
    """

    def __init__(self, row: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> None:
        self.row, self.column, self.value, self.shape = row, column, value, shape
        per_row = count(row, shape[0])
        self._rowptr = torch.cat([per_row.new_zeros(1), per_row.cumsum(0)])

    @classmethod
    def of(cls, x: Tensor) -> SparseRows:
        """The rows of a sparse matrix of any layout; entries of one place are added up."""
        entries = x.detach().to_sparse_coo().coalesce()
        value = entries.values()
        value = value if value.dtype == torch.float64 else value.float()
        row, column = entries.indices()
        return cls(row, column, value, (x.size(0), x.size(1)))

    @property
    def device(self) -> torch.device:
        """Where the entries are."""
        return self.value.device

    def __len__(self) -> int:
        return self.shape[0]

    def size(self, dim: int) -> int:
        """Rows or columns."""
        return self.shape[dim]

    def numel(self) -> int:
        """Entries and zeros."""
        return self.shape[0] * self.shape[1]

    def detach(self) -> SparseRows:
        """These rows, which have no gradient."""
        return self

    def amin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The minimum of all, of each column (0), or of each row (1), zeros included."""
        return self._extreme("amin", torch.inf, dim, keepdim)

    def amax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The maximum, see :meth:`amin`."""
        return self._extreme("amax", -torch.inf, dim, keepdim)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Rows as a dense tensor."""
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)), device=self.device)
        taken = self.take(index.reshape(-1))
        dense = self.value.new_zeros(taken.shape)
        dense[taken.row, taken.column] = taken.value
        return dense.view(*index.shape, self.shape[1])

    def take(self, index: Tensor) -> SparseRows:
        """The rows ``index``, int64 of shape ``(M,)``, still sparse."""
        begin = self._rowptr[index]
        sizes = self._rowptr[index + 1] - begin
        row = torch.repeat_interleave(torch.arange(len(index), device=self.device), sizes)
        place = torch.arange(len(row), device=self.device) + (begin - sizes.cumsum(0) + sizes)[row]
        return SparseRows(row, self.column[place], self.value[place], (len(index), self.shape[1]))

    def check_finite(self, done: str) -> None:
        """Refuses NaN and infinity, see :func:`~lit_gnncompress.quantization.finite.check_finite`.

        Raises:
            ValueError: Naming the first such row and column.
        """
        wrong = ~torch.isfinite(self.value)
        if bool(wrong.any()):
            row = int(self.row[wrong][0])
            check_finite(self[row : row + 1], done, row)

    def _extreme(self, which: str, start: float, dim: int | None, keepdim: bool) -> Tensor:
        if dim is None:
            by_row = self._extreme(which, start, 1, False)
            return by_row.amin() if which == "amin" else by_row.amax()
        group = self.column if dim == 0 else self.row
        groups, full = self.shape[1 - dim], self.shape[dim]
        ends = self.value.new_full((groups,), start).scatter_reduce_(0, group, self.value, which)
        # Where a place is not stored, it holds a zero.
        zero = ends.clamp(max=0) if which == "amin" else ends.clamp(min=0)
        ends = torch.where(count(group, groups) < full, zero, ends)
        return ends.unsqueeze(dim) if keepdim else ends
