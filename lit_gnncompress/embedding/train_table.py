"""What :class:`TTEmbedding` and :class:`TTEmbeddingBag` share: a table as a tensor train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from lit_gnncompress.embedding.choosing import choose_shape, parameters_within
from lit_gnncompress.embedding.cores import Init, check_init, initial_cores
from lit_gnncompress.embedding.decomposition import tt_svd
from lit_gnncompress.embedding.factors import NUM_FACTORS, TTShape, highest_ranks
from lit_gnncompress.embedding.partition import PartVectors
from lit_gnncompress.embedding.row_order import RowOrder
from lit_gnncompress.embedding.row_table import RowTable
from lit_gnncompress.kernels import tt_lookup, tt_table

if TYPE_CHECKING:
    from lit_gnncompress.embedding.node_order import NodeOrder

Table = TypeVar("Table", bound="TrainTable")


def all_rows(cores: Sequence[Tensor], num_embeddings: int, order: RowOrder | None) -> Tensor:
    """The rows of a tensor train in the order of their indices, shape ``(num_embeddings, D)``."""
    if order is None:
        return tt_table(cores, num_embeddings)
    return tt_table(cores).index_select(0, order.place)


class TrainTable(RowTable):
    """A table of ``num_embeddings`` × ``embedding_dim`` as a tensor train.

    Arguments, attributes and what is refused: see
    :class:`~lit_gnncompress.embedding.tensor_train.TTEmbedding`.

    Attributes:
        lost_share: Share, by Frobenius norm, that the cores do not hold of a full table that was
            read into them; noted by whoever does that. ``None`` before, and for a table of zeros.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        rank: int | Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
        order: NodeOrder | None = None,
        init: Init = "semi_orthogonal",
        compression: float | None = None,
        max_bytes: int | None = None,
        parts: bool | Sequence[int] = False,
        std: float = 1.0,
        learn_scale: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _refuse_row_by_row(max_norm, norm_type, scale_grad_by_freq, sparse)
        rank = _whole(rank)
        row_order = None
        if order is not None:
            row_order = RowOrder.of(order, num_embeddings, rows, device)
            rows = row_order.rows
        super().__init__(num_embeddings, embedding_dim, padding_idx, row_order)
        check_init(init, std)
        self.init, self.std = init, std

        vectors = None
        if parts:
            if row_order is None:
                raise ValueError(f"parts={parts} needs an order: it tells the parts.")
            # Finer levels have more parameters than the cores.
            levels = (1,) if parts is True else parts
            self.std = std / 2**0.5  # the squares of both add up
            vectors = PartVectors(
                row_order.rows, levels, self.embedding_dim, self.std, device, dtype
            )
        dtype = torch.get_default_dtype() if dtype is None else dtype
        table = (self.num_embeddings, self.embedding_dim)
        allowed = parameters_within(
            *table, dtype, rank=rank, compression=compression, max_bytes=max_bytes
        )
        if allowed is not None:
            others = [] if vectors is None else list(vectors.parameters())
            allowed -= sum(other.numel() for other in others) + learn_scale
        self.shape = choose_shape(
            *table,
            rank=rank,
            rows=rows,
            columns=columns,
            max_parameters=allowed,
            orthogonal=init == "orthogonal",
            size=f"max_bytes={max_bytes}" if compression is None else f"compression={compression}",
        )
        highest = highest_ranks(self.shape.rows, self.shape.columns)
        if any(r > most for r, most in zip(self.shape.ranks, highest, strict=True)):
            self.shape = choose_shape(
                *table,
                rank=tuple(map(min, self.shape.ranks, highest)),
                rows=self.shape.rows,
                columns=self.shape.columns,
                orthogonal=init == "orthogonal",
            )
        self.cores = nn.ParameterList(
            nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            for shape in self.shape.core_shapes
        )
        scale = torch.ones((), device=device, dtype=dtype) if learn_scale else None
        self.core_scale = None if scale is None else nn.Parameter(scale)
        self.parts = vectors
        self.lost_share: float | None = None
        self._reset_cores()

    @classmethod
    def from_pretrained(
        cls: type[Table],
        weight: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        *,
        rank: int | Sequence[int] | None = None,
        error: float | None = None,
        **arguments: Any,
    ) -> Table:
        """The tensor train nearest to a table.

        Args:
            weight: The table, floating-point, shape ``(N, D)``, row ``i`` for index ``i``.
            freeze: Whether the parameters are not trained, as in ``nn.Embedding``.
            padding_idx: A row that is zero and has no gradient.
            rank: As for the constructor.
            error: Takes the least ranks with which the Frobenius norm of the difference, over that
                of the table, is at most this; of what vectors of parts leave of it, where
                ``parts`` are asked for.
            **arguments: Further ones of the constructor, ``compression`` and ``max_bytes`` among
                them; ``init`` and ``std`` have no effect and are refused.

        Returns:
            The table, on the device and in the dtype of ``weight``.

        Raises:
            TypeError: ``weight`` is no tensor.
            ValueError: What constructor and
                :func:`~lit_gnncompress.embedding.decomposition.tt_svd` refuse.
        """
        if not isinstance(weight, Tensor):
            remedy = "give its weight" if isinstance(weight, nn.Module) else "torch.as_tensor(…)"
            raise TypeError(f"weight is a {type(weight).__name__} and must be a tensor: {remedy}.")
        if weight.dim() != 2 or not weight.is_floating_point():
            raise ValueError(
                f"weight must be floating-point of shape (N, D), got {weight.dtype} of shape "
                f"{tuple(weight.shape)}."
            )
        if unknown := {"init", "std", "device", "dtype"} & set(arguments):
            raise ValueError(f"{', '.join(sorted(unknown))}: the table itself decides.")
        if error is not None and {"compression", "max_bytes"} & set(arguments):
            raise ValueError(f"error={error} decides about the rank: give no other size.")
        if error is not None and rank is not None:
            raise ValueError(f"rank={rank} and error={error}: give one of them.")
        arguments |= {"device": weight.device, "dtype": weight.dtype, "init": "uniform"}
        out = cls(weight.size(0), weight.size(1), padding_idx=padding_idx, rank=rank, **arguments)
        with torch.no_grad():
            if out.core_scale is not None:
                out.core_scale.fill_(1)
            table = weight.detach()
            if out.padding_idx is not None:
                table = table.clone()
                table[out.padding_idx] = 0
            if out.row_order is not None:
                place = out.row_order.place.long()
                if out.parts is not None:
                    table = out.parts.fit_(table, place)
                by_node, table = table, table.new_zeros(out.shape.num_rows, table.size(1))
                table[place] = by_node
            factors = (out.shape.rows, out.shape.columns)
            wanted = out.shape.ranks if error is None else None
            cores = tt_svd(table, *factors, rank=wanted, error=error)
        out.shape = TTShape(*factors, tuple(core.size(3) for core in cores[:-1]))
        out.cores = nn.ParameterList(nn.Parameter(core) for core in cores)
        out.init = "semi_orthogonal"  # of a reset; what the table replaced had to be quick
        if not bool(table.any()):  # all cores would be zero, and none would have a gradient
            out.zero_cores_()
        return out.requires_grad_(not freeze)

    def reset_parameters(self) -> None:
        """Draws the parameters anew from torch's generator.

        Raises:
            ValueError: The order is lost, as ``to_empty`` loses what is not on the meta device.
        """
        if self.row_order is not None:
            self.row_order.check_filled()
        self._reset_cores()
        if self.parts is not None:
            self.parts.reset_parameters()

    @torch.no_grad()
    def _reset_cores(self) -> None:
        first = self.cores[0]
        if first.is_meta:
            return
        std = self.std
        if self.core_scale is not None:
            self.core_scale.fill_(std ** (1 / len(self.cores)))
            std = 1.0
        fresh = initial_cores(self.shape, self.init, std, device=first.device, dtype=first.dtype)
        for core, value in zip(self.cores, fresh, strict=True):
            core.copy_(value)

    @torch.no_grad()
    def zero_cores_(self) -> None:
        """Makes all products zero by the last core, which has a gradient from the others."""
        self._reset_cores()
        self.cores[-1].zero_()

    def scaled_cores(self) -> list[Tensor]:
        """The cores with their shared scale, as kernels take them; differentiable."""
        cores = list(self.cores)
        if self.core_scale is not None:
            sizes = [core.numel() for core in cores]
            smallest = sizes.index(min(sizes))
            cores[smallest] = cores[smallest] * self.core_scale ** len(cores)
        return cores

    @property
    def _trained(self) -> list[Tensor]:
        # The cores can be slices of larger ones.
        others = [p for name, p in self.named_parameters() if not name.startswith("cores.")]
        return [*self.cores, *others]

    @property
    def _rows(self) -> tuple[int, ...]:
        return self.shape.rows

    def _rows_at(self, places: Tensor) -> Tensor:
        out = tt_lookup(places, self.scaled_cores())
        return out if self.parts is None else out + self.parts(places)

    def _all_rows(self) -> Tensor:
        out = all_rows(self.scaled_cores(), self.num_embeddings, self.row_order)
        if self.parts is None or self.row_order is None:
            return out
        return out + self.parts(self.row_order.place)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        keys = [f"{prefix}cores.{k}" for k in range(max(NUM_FACTORS))]
        saved = [tuple(state_dict[key].shape) for key in takewhile(state_dict.__contains__, keys)]
        whole = all(len(s) == 4 for s in saved) and bool(saved) and saved[-1][3] == 1
        if whole and saved != list(self.shape.core_shapes):
            error_msgs: list[str] = args[-1]
            error_msgs.append(
                f"{prefix}cores: the state was made with rows={tuple(s[0] for s in saved)}, "
                f"columns={tuple(s[2] for s in saved)}, rank={tuple(s[3] for s in saved[:-1])}; "
                f"this table has rows={self.shape.rows}, columns={self.shape.columns}, "
                f"rank={self.shape.ranks}."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Arguments, and how much smaller the table is."""
        return (
            f"{super().extra_repr()}, rank={self.shape.ranks}, rows={self.shape.rows}, "
            f"columns={self.shape.columns}, compression_ratio={self.compression_ratio:.4g}"
        )


def _refuse_row_by_row(
    max_norm: float | None, norm_type: float, scale_grad_by_freq: bool, sparse: bool
) -> None:
    """Refuses arguments of ``nn.Embedding`` that treat rows one by one.

    Raises:
        ValueError: Saying what to do instead.
    """
    if max_norm is not None:
        raise ValueError(
            f"max_norm={max_norm} (norm_type={norm_type}): rows share their cores and cannot be "
            f"scaled one by one. Leave it out; weight decay keeps cores small."
        )
    if scale_grad_by_freq:
        raise ValueError(
            "scale_grad_by_freq=True: gradients are those of cores, which all rows share. Leave it "
            "out, and divide the loss of frequent rows where they are to count less."
        )
    if sparse:
        raise ValueError(
            "sparse=True: cores are small and their gradients dense. Leave it out; SGD and Adagrad "
            "take them beside the sparse gradients of other tables, SparseAdam wants an Adam for "
            "them."
        )


def _whole(rank: Any) -> int | tuple[int, ...] | None:
    """One rank or several, of whatever whole numbers.

    Raises:
        TypeError: Something else.
    """
    if rank is None or (isinstance(rank, Integral) and not isinstance(rank, bool)):
        return rank if rank is None else int(rank)
    several = isinstance(rank, Iterable) and not isinstance(rank, str)
    ranks = list(rank) if several else []
    if not ranks or any(isinstance(r, bool) or not isinstance(r, Integral) for r in ranks):
        raise TypeError(f"rank={rank!r} must be a whole number, or a sequence of them.")
    return tuple(int(r) for r in ranks)
