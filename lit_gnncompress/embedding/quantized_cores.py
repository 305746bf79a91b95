"""A trained tensor train in 1 to 8 bits a number."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_gnncompress.embedding.row_table import RowTable
from lit_gnncompress.embedding.saved_numbers import SavedNumbers
from lit_gnncompress.embedding.tensor_train import TTEmbedding
from lit_gnncompress.embedding.train_table import all_rows
from lit_gnncompress.kernels import gather_dequantize, quantize_pack, tt_lookup
from lit_gnncompress.kernels.layout import check_bits, row_bytes

_FORM = SavedNumbers("form", torch.int32, lambda form: f"{form[0]} bits and shape {form[1:]}")


class PackedSlices(nn.Module):
    r"""A tensor whose slices along the first dimension have a scale each.

    Codes lie evenly on both sides of zero, :math:`s (q - (2^b - 1) / 2)`, with the largest
    magnitude of the slice at the end: no code is lost to symmetry, and no range but the scale.

    Args:
        tensor: Floating-point, shape ``(p, …)``.
        bits: Bits of a code, 1 to 8.

    Attributes:
        codes: Packed codes, uint8, shape ``(p, row_bytes(width, bits))``.
        scale: Distance of two codes, shape ``(p,)``, float32 unless the module is moved to
            another dtype, which is that of the values, too.

    States have ``form`` besides, int32: bits and shape, which codes do not tell.

    Raises:
        ValueError: Bits outside 1 to 8, or values that are not finite.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, tensor: Tensor, bits: int) -> None:
        super().__init__()
        check_bits(bits)
        self.bits, self.shape = bits, tuple(tensor.shape)
        self.register_buffer("codes", tensor.new_empty(self._code_shape, dtype=torch.uint8))
        self.register_buffer("scale", tensor.new_empty(len(tensor), dtype=torch.float32))
        if tensor.is_meta:
            return
        slices = tensor.detach().float().flatten(1)
        if not bool(slices.isfinite().all()):
            raise ValueError(f"A tensor of shape {self.shape} has values that are not finite.")
        self.scale = slices.abs().amax(1) * (2 / (2**bits - 1))
        self.codes = quantize_pack(slices, self._lowest(self.scale), self.scale, bits)

    @property
    def _code_shape(self) -> tuple[int, int]:
        return (self.shape[0], row_bytes(math.prod(self.shape[1:]), self.bits))

    def _lowest(self, scale: Tensor) -> Tensor:
        return scale * (-(2**self.bits - 1) / 2)

    def forward(self, index: Tensor | None = None) -> Tensor:
        """The tensor in the dtype of ``scale``, or the slices of an index of any shape."""
        scale = self.scale.float()
        width = math.prod(self.shape[1:])
        flat = None if index is None else index.flatten()
        values = gather_dequantize(self.codes, self._lowest(scale), scale, self.bits, width, flat)
        slices = self.shape[:1] if index is None else index.shape
        return values.view(*slices, *self.shape[1:]).to(self.scale.dtype)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)  # type: ignore[no-untyped-call]
        _FORM.save(destination, prefix, (self.bits, *self.shape))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        strict, missing_keys, _, error_msgs = args[1:]
        own = (self.bits, *self.shape)
        state_dict = _FORM.take(state_dict, prefix, own, strict, missing_keys, error_msgs)
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        """Shape and bits."""
        return f"{self.shape}, bits={self.bits}"


def form_of(form: Tensor) -> tuple[int, tuple[int, ...]]:
    """Bits and shape, as the state of :class:`PackedSlices` has them in ``form``."""
    bits, *shape = form.tolist()
    return bits, tuple(shape)


class QuantizedTTEmbedding(RowTable):
    """A :class:`TTEmbedding` whose cores, and vectors of parts, are kept in 1 to 8 bits.

    Each digit of a core, and each part, has a scale. The cores, which are small, are unpacked for
    each call; no gradient reaches them. A state fits what was made of a table of equal arguments,
    trained or not.

    Args:
        table: The trained table. It stays as it is.
        bits: Bits of a number; 8 and 4 cost next to no accuracy.

    Attributes:
        shape: Factors and ranks.
        bits: Bits of a number.
        cores: The packed cores; calling one gives its tensor ``(p_k, R_{k-1}, q_k, R_k)``.
        parts: The packed vectors of parts, by level; empty without.

    Raises:
        TypeError: Something else than a ``TTEmbedding``.
        ValueError: Bits outside 1 to 8, or cores with values that are not finite.

    Example:
        >>> table = TTEmbedding(100_000, 64, rank=8)
        >>> small = table.quantized(bits=4)
        >>> round(small.num_bytes / table.num_bytes, 2)
        0.13
    """

    def __init__(self, table: TTEmbedding, bits: int = 8) -> None:
        if not isinstance(table, TTEmbedding):
            what = "which would no longer reduce bags: leave it" if hasattr(table, "mode") else ""
            raise TypeError(
                f"table is a {type(table).__name__}, {what or 'which has no cores: leave it'} as "
                f"it is. Only a TTEmbedding can be quantized."
            )
        super().__init__(
            table.num_embeddings,
            table.embedding_dim,
            table.padding_idx,
            copy.deepcopy(table.row_order),
        )
        self.shape, self.bits = table.shape, bits
        self.cores = nn.ModuleList(PackedSlices(core, bits) for core in table.scaled_cores())
        parts = table.parts
        self._spans = () if parts is None else parts.spans
        tables = [] if parts is None else list(parts.tables)
        self.parts = nn.ModuleList(PackedSlices(vectors, bits) for vectors in tables)
        self.train(table.training)

    @property
    def compression_ratio(self) -> float:
        """Bytes of an fp32 table over those of codes and scales; the order's not counted."""
        kept = [buffer for part in (self.cores, self.parts) for buffer in part.buffers()]
        size = sum(buffer.numel() * buffer.element_size() for buffer in kept)
        return 4 * self.num_embeddings * self.embedding_dim / size

    @property
    def _rows(self) -> tuple[int, ...]:
        return self.shape.rows

    def _rows_at(self, places: Tensor) -> Tensor:
        return self._with_parts(tt_lookup(places, [core() for core in self.cores]), places)

    def _all_rows(self) -> Tensor:
        out = all_rows([core() for core in self.cores], self.num_embeddings, self.row_order)
        return out if self.row_order is None else self._with_parts(out, self.row_order.place)

    def _with_parts(self, out: Tensor, places: Tensor) -> Tensor:
        for vectors, span in zip(self.parts, self._spans, strict=True):
            out = out + vectors(torch.div(places, span, rounding_mode="floor"))
        return out

    def extra_repr(self) -> str:
        """Arguments, and how much smaller the table is."""
        return (
            f"{super().extra_repr()}, rank={self.shape.ranks}, bits={self.bits}, "
            f"compression_ratio={self.compression_ratio:.4g}"
        )
