"""GAT layers whose coefficients and messages never lie in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATConv
from torch_geometric.nn.aggr import SumAggregation

from lit_gnncompress.kept import kept
from lit_gnncompress.kernels.adjacency import Adjacency
from lit_gnncompress.kernels.attention_aggregate import attention_aggregate
from lit_gnncompress.quantization.attention import (
    AttentionSite,
    QuantizedGATConv,
    register_attention,
)
from lit_gnncompress.quantization.explainable import Explainable

_LAYOUTS = (torch.strided, torch.sparse_csr, torch.sparse_coo)


class FusedGATConv(Explainable, GATConv):
    """:class:`torch_geometric.nn.GATConv` by one kernel: no E × H, no E × H × C.

    It computes what its parent does, to rounding; dropout of coefficients draws other numbers. What
    the kernel does not know is left to the parent: edge features, returned coefficients,
    explanations, hooks on messages, other aggregations, other precisions than fp32,
    ``torch_sparse`` matrices, and ``torch.compile``. The sorted edges are kept as long as
    ``edge_index`` lives.
    """

    def forward(  # type: ignore[override]  # noqa: D102
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        size: tuple[int, int] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        pair = x if isinstance(x, (tuple, list)) else (x, x)
        if (
            edge_attr is not None
            or return_attention_weights
            or not _serves(self)
            or not _are_served(pair, edge_index, size)
            or (edge_index.layout != torch.strided and self.lin_edge is not None)
        ):
            return super().forward(x, edge_index, edge_attr, size, return_attention_weights)
        num_sources, num_targets = (len(each) for each in pair)
        num_loops = min(num_sources, num_targets) if self.add_self_loops else -1
        adjacency = _adjacency(edge_index, num_sources, num_targets, num_loops)
        lin_src, lin_dst = (
            (self.lin, self.lin) if self.lin is not None else (self.lin_src, self.lin_dst)
        )
        values = lin_src(pair[0])
        shared = pair[0] is pair[1] and lin_src is lin_dst
        score_dst = None if shared else _plain(lin_dst(pair[1])) @ _by_head(self.att_dst)
        site: AttentionSite | None = getattr(self, "attention_site", None)
        quantize = None
        if site is not None and site.context.enabled:
            # The coefficients may be asked for later, when the layer is called again.
            quantize = functools.partial(site.alpha_range, call=site.begin_call())
        prepare = functools.partial(
            self._attend, adjacency=adjacency, score_dst=score_dst, quantize=quantize
        )
        if self.concat and self.res is None and hasattr(values, "defer"):
            # The features may be made a block of rows at a time, for a site that quantizes them.
            out = values.defer(prepare, num_targets, self.heads * self.out_channels)
            return out if self.bias is None else out + self.bias
        out = prepare(_plain(values))(0, num_targets)
        if not self.concat:
            out = out.view(-1, self.heads, self.out_channels).mean(dim=1)
        if self.res is not None:
            out = out + self.res(pair[1])
        if self.bias is not None:
            out = out + self.bias if torch.is_grad_enabled() else out.add_(self.bias)
        return out

    def _attend(
        self,
        values: Tensor,
        *,
        adjacency: Adjacency,
        score_dst: Tensor | None,
        quantize: Callable[..., Tensor | None] | None,
    ) -> Callable[[int, int], Tensor]:
        """What gives the weighted sums of a span of targets.

        Args:
            values: Transformed features of the sources, shape ``(N, H * C)``.
            adjacency: The edges.
            score_dst: Scores of the targets, shape ``(M, H)``; by ``values`` if ``None``.
            quantize: Finds the ranges of the coefficients; ``None`` where they stay.
        """
        to_scores: Tensor
        if score_dst is None:
            scores = values @ _by_head(self.att_src, self.att_dst)
            score_src, to_scores = (part.contiguous() for part in scores.split(self.heads, dim=1))
        else:
            score_src, to_scores = values @ _by_head(self.att_src), score_dst
        ranges, renormalize = None, False
        if quantize is not None:
            ranges = quantize(adjacency, score_src, to_scores, self.negative_slope)
            renormalize = self.attention_site.renormalize  # type: ignore[union-attr]
        drops = self.training and self.dropout > 0
        seed = int(torch.randint(2**62, ())) if drops else 0

        def attend(start: int, stop: int) -> Tensor:
            part, own_scores, own_ranges = adjacency, to_scores, ranges
            if stop - start < adjacency.num_targets:
                part, own_scores = adjacency.into(start, stop), own_scores[start:stop]
                if ranges is not None and len(ranges) > 1:
                    own_ranges = ranges[start:stop]
            return attention_aggregate(
                values,
                score_src,
                own_scores,
                part,
                negative_slope=self.negative_slope,
                alpha_range=own_ranges,
                renormalize=renormalize,
                dropout_p=self.dropout if drops else 0.0,
                seed=seed,
            )

        return attend


class FusedQuantizedGATConv(QuantizedGATConv, FusedGATConv):
    """:class:`FusedGATConv` with quantized attention, of min/max or static ranges."""


register_attention(FusedGATConv, FusedQuantizedGATConv)

_FUSED: dict[type, type] = {GATConv: FusedGATConv, QuantizedGATConv: FusedQuantizedGATConv}


def fuse_attention(module: nn.Module) -> nn.Module:
    """Makes every GAT layer of ``module`` a :class:`FusedGATConv`, in place.

    Parameters, hooks and ``isinstance`` stay as they are. Quantized layers stay quantized; to take
    their quantization out makes them what they were before it came. Subclasses of ``GATConv``, and
    other convolutions, are left alone.

    Example:
        >>> from torch_geometric.nn import GAT
        >>> fuse_attention(GAT(8, 16, num_layers=1, heads=4)).convs[0]
        FusedGATConv(8, 4, heads=4)
    """
    for layer in module.modules():
        layer.__class__ = _FUSED.get(type(layer), type(layer))
    return module


def unfuse_attention(module: nn.Module) -> nn.Module:
    """Undoes :func:`fuse_attention`."""
    plain = {fused: cls for cls, fused in _FUSED.items()}
    for layer in module.modules():
        layer.__class__ = plain.get(type(layer), type(layer))
        if isinstance(layer, QuantizedGATConv):
            site = layer.attention_site
            site.original = plain.get(site.original, site.original)
    return module


def _serves(conv: FusedGATConv) -> bool:
    """Whether the kernel does what the layer would."""
    cls, site = type(conv), getattr(conv, "attention_site", None)
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not conv.explain
        and conv.flow == "source_to_target"
        and type(conv.aggr_module) is SumAggregation
        and conv.decomposed_layers == 1
        and (site is None or site.can_fuse)
        and cls.edge_update in (GATConv.edge_update, QuantizedGATConv.edge_update)
        and all(getattr(cls, name) is getattr(GATConv, name) for name in _METHODS)
        and not any(getattr(conv, f"_{name}_hooks") for name in _HOOKS)
        and conv.att_src.dtype == torch.float32
    )


_METHODS = ("message", "aggregate", "update")
_HOOKS = [
    f"{step}_forward{when}"
    for step in ("propagate", "message", "aggregate", "edge_update")
    for when in ("_pre", "")
]


def _are_served(pair: Any, edge_index: Any, size: tuple[int, int] | None) -> bool:
    """Whether the kernel knows such features and edges."""
    if len(pair) != 2 or not isinstance(edge_index, Tensor):
        return False
    for x in pair:
        if not isinstance(x, Tensor) or x.dim() != 2 or x.dtype != torch.float32:
            return False
    device = edge_index.device
    sizes = pair[0].size(0), pair[1].size(0)
    return (
        device.type in ("cpu", "cuda")
        and pair[0].device == pair[1].device == device
        and not torch.is_autocast_enabled(device.type)
        and (size is None or tuple(size) == sizes)
        and _has_edges(edge_index, sizes)
    )


def _has_edges(edge_index: Tensor, sizes: tuple[int, int]) -> bool:
    if edge_index.layout == torch.strided:
        whole = edge_index.dtype in (torch.int64, torch.int32)
        return whole and edge_index.dim() == 2 and edge_index.size(0) == 2
    return edge_index.layout in _LAYOUTS and tuple(edge_index.shape) == sizes[::-1]


def _by_head(*attention: Tensor) -> Tensor:
    """Attentions ``(1, H, C)`` as a matrix ``(H * C, H)`` each, whose products are sums by head.

    The matrices lie side by side.
    """
    heads, channels = attention[0].shape[1:]
    by_channel = torch.cat(attention).permute(2, 0, 1)  # (C, K, H)
    blocks = torch.diag_embed(by_channel, dim1=0, dim2=3)  # (H, C, K, H)
    return blocks.reshape(heads * channels, len(attention) * heads)


def _plain(x: Tensor) -> Tensor:
    return x if type(x) is Tensor else x.as_subclass(Tensor)


def _adjacency(edge_index: Tensor, num_sources: int, num_targets: int, num_loops: int) -> Adjacency:
    """The sorted edges; if ``num_loops`` is 0 or more, with as many self-loops in place of theirs.

    They are kept while ``edge_index`` lives and is not written to.
    """
    plain = edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index
    key = ("fused attention", num_sources, num_targets, num_loops)
    return kept(plain, key, lambda: _sort(plain, num_sources, num_targets, num_loops))


def _sort(edge_index: Tensor, num_sources: int, num_targets: int, num_loops: int) -> Adjacency:
    if edge_index.layout == torch.sparse_csr:
        target = torch.arange(num_targets, device=edge_index.device)
        target = target.repeat_interleave(edge_index.crow_indices().diff())
        source = edge_index.col_indices()
    elif edge_index.layout == torch.sparse_coo:
        target, source = edge_index.coalesce().indices()
    else:
        source, target = edge_index
    if num_loops >= 0:
        others = source != target
        loops = torch.arange(num_loops, dtype=source.dtype, device=source.device)
        source, target = (torch.cat([ends[others], loops]) for ends in (source, target))
    adjacency = Adjacency.from_edge_index(source, target, num_sources, num_targets)
    # Nothing here is in the order of edge_index.
    return Adjacency(adjacency.rowptr, adjacency.col, None, num_sources)
