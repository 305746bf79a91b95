"""Embedding tables in tensor-train form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_gnncompress.embedding.train_table import TrainTable

if TYPE_CHECKING:
    from lit_gnncompress.embedding.quantized_cores import QuantizedTTEmbedding


class TTEmbedding(TrainTable):
    r"""A table of ``num_embeddings`` × ``embedding_dim`` as a tensor train.

    It stands where ``nn.Embedding`` stood (Yin et al., "Nimble GNN embedding with tensor-train
    decomposition", KDD 2022; "TT-Rec", MLSys 2021). With the digits
    :math:`i = (i_1 p_2 + i_2) p_3 + i_3`, row :math:`i` is the product of slices
    :math:`G_1[i_1] \, G_2[i_2] \, G_3[i_3]`. Rows with equal leading digits share most of their
    parameters: nodes of a graph want an ``order`` that puts neighbours close together.

    Args:
        num_embeddings: Number of rows, ``N``.
        embedding_dim: Number of columns, ``D``.
        padding_idx: A row that is zero and has no gradient; negative ones count from the end.
        max_norm: Refused if given: rows share their cores and cannot be scaled one by one.
        norm_type: Of ``max_norm``.
        scale_grad_by_freq: Refused if true, for the same reason.
        sparse: Refused if true: the gradient of every core is dense.
        rank: Rank between all cores, or each inner rank; nowhere above what a table of these
            factors can have. 8 if neither it nor a size is given.
        rows: Factors of the rows, 2 to 4, their product at least ``N``. Those of the order, or
            balanced ones.
        columns: Factors of the columns, as many, their product ``D``. Balanced ones by default.
        order: Row ``i`` is that in place ``order.place[i]``.
        init: See :func:`~lit_gnncompress.embedding.cores.initial_cores`. The default is orthogonal
            wherever the factors allow it; ``"orthogonal"`` refuses others.
        compression: Takes the highest rank with at most ``N * D / compression`` parameters.
        max_bytes: Takes the highest rank whose parameters take at most as many bytes.
        parts: Whether a vector for each part of the order is added to its rows (see
            :class:`PartitionEmbedding`); those of the first level, or the levels given. Their
            parameters count.
        std: Root mean square of the entries at the beginning; that of ``nn.Embedding`` is 1.
        learn_scale: Whether all cores share a factor that is trained, so that the scale of the
            table is one number that an optimizer can move.
        device: Of parameters and order. On ``"meta"`` the order waits on the CPU for ``to_empty``.
        dtype: Of the parameters; ``.to(torch.bfloat16)`` does as well.

    Attributes:
        shape: Factors and ranks.
        cores: Core ``k`` of shape ``(p_k, R_{k-1}, q_k, R_k)``.
        core_scale: The shared factor, without shape; ``None`` unless ``learn_scale``. With ``d``
            cores rows are multiplied by its ``d``-th power.
        parts: The vectors of parts; ``None`` without.
        row_order: The order; ``None`` without.

    Raises:
        TypeError: An ``order`` that is none, or a ``rank`` that is no whole number.
        ValueError: What is refused above, factors too small for the table or of different number, a
            rank below 1, a size that nothing fits in, an order of another number of nodes or made
            for other factors, ``parts`` without an order, factors that allow no orthogonal cores
            with ``init="orthogonal"``, or more than one of ``rank``, ``compression`` and
            ``max_bytes``.

    Example:
        >>> table = TTEmbedding(2_449_029, 100, rank=16, columns=(4, 5, 5), rows=(125, 140, 140))
        >>> table(torch.tensor([[0, 5], [7, 2_449_028]])).shape, round(table.compression_ratio)
        (torch.Size([2, 2, 100]), 1234)
    """

    def quantized(self, bits: int = 8) -> QuantizedTTEmbedding:
        """The trained table in few bits, for inference; this one stays as it is.

        Args:
            bits: Bits of a number, 1 to 8.

        Raises:
            ValueError: Other bits, or cores with values that are not finite.
        """
        from lit_gnncompress.embedding.quantized_cores import QuantizedTTEmbedding

        return QuantizedTTEmbedding(self, bits)
