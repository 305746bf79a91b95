"""Attention sites: convolutions that quantize their coefficients right after the softmax.

A convolution becomes its quantized subclass by a change of class, in place, and back by another:
parameters, hooks and ``isinstance`` stay as they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import (
    AGNNConv,
    GATConv,
    GATv2Conv,
    MessagePassing,
    SuperGATConv,
    TransformerConv,
)
from torch_geometric.utils import scatter, softmax

from lit_gnncompress.kernels.adjacency import Adjacency, slot_rows
from lit_gnncompress.kernels.attention_range import attention_range
from lit_gnncompress.plan import FULL_PRECISION, Site
from lit_gnncompress.quantization.calls import Call, Calls
from lit_gnncompress.quantization.context import GraphContext, Seen
from lit_gnncompress.quantization.degrees import DegreeBuckets, count
from lit_gnncompress.quantization.explainable import Explainable
from lit_gnncompress.quantization.quantizer import Quantizer
from lit_gnncompress.quantization.ranges import CalibratedRange, Range, step

AttentionGranularity = Literal["bucket", "node"]


class AttentionSite:
    """Quantizes the attention coefficients of one convolution.

    Args:
        site: Name of the convolution.
        bits: Bits of each degree bucket of the receiving node.
        quantizer: How ranges are found.
        renormalize: Whether the coefficients of a node sum to 1 again after rematching, which
            gradients see. A node whose coefficients all round to zero weighs its neighbours alike.
        context: The graph in hand.
        granularity: Which coefficients share a range: those of a degree ``"bucket"``, or of a
            receiving ``"node"``, from 0 to their maximum.

    Attributes:
        original: Class of the convolution before it was swapped.
        static_range: The range if it is known before the coefficients are; ``None`` where ranges
            are found anew at every call.
    """

    def __init__(
        self,
        site: Site,
        bits: tuple[int, ...],
        quantizer: Quantizer,
        renormalize: bool,
        context: GraphContext,
        granularity: AttentionGranularity = "bucket",
    ) -> None:
        self.granularity = granularity
        self.site = site
        self.bits = bits
        self.quantizer = quantizer
        self.renormalize = renormalize
        self.context = context
        self.original: type[nn.Module]
        self.static_range: CalibratedRange | None = None
        self._calls = Calls(context)

    @property
    def seen(self) -> list[Seen]:
        """What passed in the latest step; of fused attention, worked out when looked at."""
        return self._calls.seen

    def begin_call(self) -> Call:
        """A new call of the convolution, for :meth:`alpha_range`."""
        return self._calls.begin()

    def __call__(self, alpha: Tensor, index: Tensor, num_nodes: int | None) -> Tensor:
        """Quantizes ``alpha`` of shape ``(E, H)`` or ``(E,)``, ``index`` the receiving nodes."""
        if not self.context.enabled or alpha.numel() == 0:
            return alpha
        call = self.begin_call()
        by_edge = alpha.view(alpha.size(0), -1)
        num_nodes = int(index.max()) + 1 if num_nodes is None else num_nodes
        buckets = self._buckets(index, num_nodes)
        if set(self.bits) == {FULL_PRECISION}:
            call.seen = [Seen(by_edge.shape, buckets, None)]
            return alpha
        ranges = None
        if self.granularity == "node":
            range = _range_of_nodes(by_edge, index, num_nodes)
            ranges = self._count_receivers(num_nodes)
        elif self.static_range is None:
            range = self.quantizer.find_range(by_edge, self.bits, buckets)
        else:
            range = self.static_range.of(by_edge, buckets)
        call.seen = [Seen(by_edge.shape, buckets, range, ranges=ranges)]
        out = self.quantizer.apply(by_edge, self.bits, buckets, range).view_as(alpha)
        if not self.renormalize:
            return out
        out = _sum_to_one(out, index, num_nodes)
        if FULL_PRECISION in self.bits and buckets is not None:
            kept = torch.tensor([b == FULL_PRECISION for b in self.bits], device=alpha.device)
            out = torch.where(kept[buckets.index].view(-1, *[1] * (out.dim() - 1)), alpha, out)
        return out

    @property
    def can_fuse(self) -> bool:
        """Whether :meth:`alpha_range` tells all that happens to the coefficients here."""
        if not self.context.enabled or set(self.bits) == {FULL_PRECISION}:
            return True
        found = self.granularity == "node" or self.quantizer.range == "minmax"
        return self.quantizer.rounding == "nearest" and (found or self.static_range is not None)

    @torch.no_grad()
    def alpha_range(
        self,
        adjacency: Adjacency,
        score_src: Tensor,
        score_dst: Tensor,
        negative_slope: float,
        call: Call,
    ) -> Tensor | None:
        """Ranges for ``attention_aggregate``, which then does what a call does to coefficients.

        Only for a site that :attr:`can_fuse`. Minima and maxima are those of all coefficients, but
        these never lie in memory.

        Args:
            adjacency: The edges.
            score_src: Share of the sources in a score, shape ``(N, H)``.
            score_dst: Share of the destinations, shape ``(M, H)``.
            negative_slope: Slope of the leaky ReLU.
            call: The call of the convolution that asks, maybe later and again.

        Returns:
            Minimum, scale and highest code, -1 for untouched buckets: float32, shape ``(1, 3)``, or
            ``(M, 3)`` for a plan with buckets. ``None`` where all is left untouched.
        """
        edges, heads = adjacency.num_edges, score_src.size(1)
        if not self.context.enabled or edges == 0:
            return None
        receivers = None
        if self.context.by_degree:
            receivers = self._receivers(lambda: adjacency.degrees).first(adjacency.num_targets)
        shape = torch.Size((edges, heads))
        if set(self.bits) == {FULL_PRECISION}:
            call.seen = functools.partial(_seen_by_edge, shape, adjacency, receivers, None)
            return None
        highest = [[-1.0 if b == FULL_PRECISION else 2.0**b - 1] for b in self.bits]
        levels = torch.tensor(highest, device=score_src.device)
        if self.granularity == "node":
            _, hi = attention_range(score_src, score_dst, adjacency, negative_slope=negative_slope)
            hi = torch.where(torch.isfinite(hi), hi, 0).unsqueeze(1)  # a node without edges
            own = levels if receivers is None else levels[receivers.index]
            call.seen = functools.partial(
                _seen_by_node, shape, adjacency, receivers, self._count_receivers(len(hi))
            )
            scale = step(torch.zeros_like(hi), hi, own.abs())
            return torch.cat([torch.zeros_like(hi), scale, own.expand_as(hi)], dim=1)
        range = self.static_range
        if range is None:
            ends = attention_range(score_src, score_dst, adjacency, negative_slope=negative_slope)
            range = _shared_range(*ends, receivers)
        call.seen = functools.partial(_seen_by_edge, shape, adjacency, receivers, range)
        lo, hi = (ends.to(score_src.device) for ends in (range.lo, range.hi))
        shared = torch.cat(torch.broadcast_tensors(lo, step(lo, hi, levels.abs()), levels), dim=1)
        if receivers is None:
            return shared
        return shared.expand(receivers.num_buckets, 3)[receivers.index]

    def _buckets(self, index: Tensor, num_nodes: int) -> DegreeBuckets | None:
        """The bucket of each coefficient: that of its receiving node."""
        if not self.context.by_degree:
            return None
        return self._receivers(lambda: count(index, num_nodes)).take(index)

    def _count_receivers(self, num_nodes: int) -> tuple[int, ...]:
        """Receiving nodes in each bucket."""
        receivers = self.context.receivers if self.context.by_degree else None
        if receivers is None or torch.compiler.is_compiling():
            return (num_nodes,)
        return tuple(receivers.first(num_nodes).counts().tolist())

    def _receivers(self, degrees: Callable[[], Tensor]) -> DegreeBuckets:
        """The bucket of each receiving node."""
        receivers = self.context.receivers
        if receivers is None:  # a layer that was not told its receivers' features
            receivers = DegreeBuckets.from_degrees(degrees(), self.context.splits)
        return receivers


def _shared_range(lo: Tensor, hi: Tensor, receivers: DegreeBuckets | None) -> CalibratedRange:
    """The range of the buckets, from the extremes of the receiving nodes, shape ``(M,)``."""
    if receivers is None:
        lo, hi = lo.amin().view(1, 1), hi.amax().view(1, 1)
        return CalibratedRange(lo, hi, torch.zeros(1, dtype=torch.bool, device=lo.device))
    none = lo.new_full((receivers.num_buckets,), torch.inf)
    lo = none.scatter_reduce(0, receivers.index, lo, "amin")
    hi = none.neg().scatter_reduce(0, receivers.index, hi, "amax")
    empty = lo > hi
    lo, hi = (ends.masked_fill(empty, 0).unsqueeze(1) for ends in (lo, hi))
    return CalibratedRange(lo, hi, torch.zeros_like(empty))


def _range_of_nodes(by_edge: Tensor, index: Tensor, num_nodes: int) -> Range:
    """From 0 to the largest coefficient that a node receives, for each of its edges."""
    most = by_edge.detach().amax(1, keepdim=True)
    hi = most.new_zeros(num_nodes, 1).scatter_reduce(0, index.unsqueeze(1), most, "amax")[index]
    by_row = torch.zeros(1, dtype=torch.bool, device=hi.device)
    return Range(torch.zeros_like(hi), hi, by_row)


def _seen_by_node(
    shape: torch.Size,
    adjacency: Adjacency,
    receivers: DegreeBuckets | None,
    ranges: tuple[int, ...],
) -> list[Seen]:
    """What the ledger is told where nodes have ranges of their own."""
    [seen] = _seen_by_edge(shape, adjacency, receivers, None)
    zero = torch.zeros(1, 1, dtype=torch.float32)
    range = Range(zero, zero, torch.zeros(1, dtype=torch.bool))
    return [seen._replace(range=range, ranges=ranges)]


def _seen_by_edge(
    shape: torch.Size,
    adjacency: Adjacency,
    receivers: DegreeBuckets | None,
    range: CalibratedRange | None,
) -> list[Seen]:
    """What the ledger is told, as if coefficients had passed edge by edge."""
    buckets = None
    if receivers is not None:
        buckets = receivers.take(slot_rows(adjacency.rowptr, adjacency.col))
    return [Seen(shape, buckets, None if range is None else range.of(adjacency.col, buckets))]


def _sum_to_one(alpha: Tensor, index: Tensor, num_nodes: int) -> Tensor:
    total = scatter(alpha, index, dim=0, dim_size=num_nodes, reduce="sum")[index]
    positive = total > 0
    alike = 1 / count(index, num_nodes).to(alpha.dtype)[index]
    alike = alike.view(-1, *[1] * (alpha.dim() - 1)).expand_as(alpha)
    return torch.where(positive, alpha / torch.where(positive, total, 1), alike)


class QuantizedAttention(Explainable):
    """Mixin of the quantized subclasses; :class:`AttentionSite` is set when the class changes."""

    attention_site: AttentionSite

    def _quantize_before_dropout(self, method: str, *args: Any) -> Tensor:
        """Coefficients of the parent's ``edge_update``, quantized before dropout thins them."""
        dropout, self.dropout = self.dropout, 0.0  # type: ignore[has-type]
        try:
            alpha = getattr(super(), method)(*args)
        finally:
            self.dropout = dropout
        index, num_nodes = args[-3], args[-1]
        alpha = self.attention_site(alpha, index, num_nodes)
        return F.dropout(alpha, p=dropout, training=self.training)  # type: ignore[attr-defined]


class QuantizedGATConv(QuantizedAttention, GATConv):
    """:class:`torch_geometric.nn.GATConv` with quantized attention."""

    def edge_update(  # noqa: D102
        self,
        alpha_j: Tensor,
        alpha_i: Tensor | None,
        edge_attr: Tensor | None,
        index: Tensor,
        ptr: Tensor | None,
        dim_size: int | None,
    ) -> Tensor:
        return self._quantize_before_dropout(
            "edge_update", alpha_j, alpha_i, edge_attr, index, ptr, dim_size
        )


class QuantizedGATv2Conv(QuantizedAttention, GATv2Conv):
    """:class:`torch_geometric.nn.GATv2Conv` with quantized attention."""

    def edge_update(  # noqa: D102
        self,
        x_j: Tensor,
        x_i: Tensor,
        edge_attr: Tensor | None,
        index: Tensor,
        ptr: Tensor | None,
        dim_size: int | None,
    ) -> Tensor:
        return self._quantize_before_dropout(
            "edge_update", x_j, x_i, edge_attr, index, ptr, dim_size
        )


class QuantizedAGNNConv(QuantizedAttention, AGNNConv):
    """:class:`torch_geometric.nn.AGNNConv` with quantized attention."""

    def message(  # noqa: D102
        self,
        x_j: Tensor,
        x_norm_i: Tensor,
        x_norm_j: Tensor,
        index: Tensor,
        ptr: Tensor | None,
        size_i: int | None,
    ) -> Tensor:
        cosine = (x_norm_i * x_norm_j).sum(dim=-1)
        alpha = softmax(self.beta * cosine, index, ptr, size_i)
        return self.attention_site(alpha, index, size_i).view(-1, 1) * x_j


class QuantizedTransformerConv(QuantizedAttention, TransformerConv):
    """:class:`torch_geometric.nn.TransformerConv` with quantized attention."""

    def message(  # noqa: D102
        self,
        query_i: Tensor,
        key_j: Tensor,
        value_j: Tensor,
        edge_attr: Tensor | None,
        index: Tensor,
        ptr: Tensor | None,
        size_i: int | None,
    ) -> Tensor:
        if self.lin_edge is not None:
            edge_attr = self.lin_edge(edge_attr).view(-1, self.heads, self.out_channels)
            key_j = key_j + edge_attr
        if edge_attr is not None:
            value_j = value_j + edge_attr
        logits = (query_i * key_j).sum(dim=-1) / math.sqrt(self.out_channels)
        alpha = self.attention_site(softmax(logits, index, ptr, size_i), index, size_i)
        self._alpha = alpha  # what `return_attention_weights` gives
        alpha = F.dropout(alpha, p=self.dropout, training=self.training)
        return value_j * alpha.view(-1, self.heads, 1)


class QuantizedSuperGATConv(QuantizedAttention, SuperGATConv):
    """:class:`torch_geometric.nn.SuperGATConv` with quantized attention."""

    def get_attention(  # noqa: D102
        self,
        edge_index_i: Tensor,
        x_i: Tensor,
        x_j: Tensor,
        num_nodes: int | None,
        return_logits: bool = False,
    ) -> Tensor:
        alpha = super().get_attention(edge_index_i, x_i, x_j, num_nodes, return_logits)
        return alpha if return_logits else self.attention_site(alpha, edge_index_i, num_nodes)


_REGISTRY: dict[type, type] = {
    GATConv: QuantizedGATConv,
    GATv2Conv: QuantizedGATv2Conv,
    AGNNConv: QuantizedAGNNConv,
    TransformerConv: QuantizedTransformerConv,
    SuperGATConv: QuantizedSuperGATConv,
}


def register_attention(conv: type[MessagePassing], quantized: type[MessagePassing]) -> None:
    """Makes attention of a convolution class quantizable.

    Args:
        conv: The convolution.
        quantized: A subclass of :class:`QuantizedAttention` and ``conv`` that calls
            ``self.attention_site(alpha, index, num_nodes)`` right after its softmax. It must be
            importable by name, and add nothing to ``__init__``.

    Raises:
        TypeError: ``quantized`` is not such a subclass.
    """
    if not issubclass(quantized, conv) or not issubclass(quantized, QuantizedAttention):
        raise TypeError(
            f"quantized={quantized.__name__} must derive from QuantizedAttention and "
            f"{conv.__name__}: class {quantized.__name__}(QuantizedAttention, {conv.__name__})."
        )
    _REGISTRY[conv] = quantized


def has_attention(conv: nn.Module) -> bool:
    """Whether a convolution computes attention: a method of its classes calls a softmax."""
    for cls in type(conv).__mro__:
        if cls is MessagePassing or not issubclass(cls, MessagePassing):
            continue
        for method in vars(cls).values():
            code = getattr(method, "__code__", None)
            if code is not None and "softmax" in code.co_names:
                return True
    return type(conv) in _REGISTRY


def can_quantize(conv: nn.Module) -> bool:
    """Whether the registry knows the class of ``conv``."""
    return type(conv) in _REGISTRY


def check_attention(conv: nn.Module, site: Site) -> None:
    """Refuses attention that the registry does not know.

    Raises:
        ValueError: With the name of the layer and the remedy.
    """
    if not can_quantize(conv):
        known = ", ".join(cls.__name__ for cls in _REGISTRY)
        raise ValueError(
            f"{site.name}: attention of {type(conv).__name__} cannot be quantized; known are "
            f"{known}. Leave its attention at {FULL_PRECISION} bits, or teach the class with "
            f"lit_gnncompress.quantization.register_attention."
        )


def swap_attention(conv: nn.Module, site: AttentionSite) -> None:
    """Turns ``conv`` into its quantized subclass."""
    conv.attention_site = site  # type: ignore[assignment]
    site.original = type(conv)
    conv.__class__ = _REGISTRY[type(conv)]


def restore_attention(conv: nn.Module) -> None:
    """Gives a swapped convolution its own class back."""
    conv.__class__ = conv.attention_site.original  # type: ignore[union-attr, assignment]
    del conv.attention_site
