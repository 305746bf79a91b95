"""The forward pre-hook of a layer, which quantizes the node features that enter it."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from lit_gnncompress.plan import FULL_PRECISION, Site
from lit_gnncompress.quantization.already_packed import ExpectedBits, is_packed, stored_of
from lit_gnncompress.quantization.calibration import KnownRange, KnownRanges, SiteRanges
from lit_gnncompress.quantization.calls import Call, Calls
from lit_gnncompress.quantization.context import GraphContext, Seen
from lit_gnncompress.quantization.degrees import DegreeBuckets
from lit_gnncompress.quantization.finite import check_finite
from lit_gnncompress.quantization.layer_arguments import (
    adjacency_of,
    features_name,
    named_arguments,
    replaced,
)
from lit_gnncompress.quantization.quantizer import Quantizer
from lit_gnncompress.quantization.ranges import CalibratedRange, Range
from lit_gnncompress.quantization.static import StaticInputs


class FeatureSite:
    """Quantizes the node features that enter one layer; it is the layer's forward pre-hook.

    Args:
        site: Name of the layer.
        bits: Bits of each degree bucket.
        quantizer: How ranges are found.
        context: The graph in hand.
        layer: The layer that the hook is for.
    """

    def __init__(
        self,
        site: Site,
        bits: tuple[int, ...],
        quantizer: Quantizer,
        context: GraphContext,
        layer: nn.Module,
    ) -> None:
        self.site = site
        self.bits = bits
        self.quantizer = quantizer
        self.context = context
        self._calls = Calls(context)
        self._call = Call(0)  # that at hand
        self._known = KnownRanges()
        self._found: KnownRange | None = None
        self._expected = ExpectedBits(site.name)
        self._by_degree = len(set(bits)) > 1
        self._parameters = list(inspect.signature(layer.forward).parameters)
        self._static = StaticInputs()
        self._evaluating = False

    @property
    def seen(self) -> list[Seen]:
        """What passed in the latest step, call by call."""
        return self._calls.seen

    @property
    def calibrated(self) -> SiteRanges:
        """Ranges that evaluation found; settable."""
        return self._known.calls

    @calibrated.setter
    def calibrated(self, calls: SiteRanges) -> None:
        self._known = KnownRanges(calls)

    def __call__(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Replaces the features among a layer's arguments by quantized ones."""
        self._evaluating = not (layer.training or torch.is_grad_enabled())
        named = named_arguments(self._parameters, args, kwargs)
        key = features_name(self._parameters, named)
        x = named.get(key) if key is not None else None
        if key is None or x is None:
            return None
        if not self.context.enabled:
            self._expected.check_none(x)
            return None
        if isinstance(layer, MessagePassing):
            adjacency, flow = adjacency_of(named), layer.flow
        elif isinstance(x, Tensor) and x.dim() == 2 and self.context.holds_nodes(x.size(0)):
            adjacency, flow = None, ""
        else:
            return None
        x = self._quantize_all(x, adjacency, flow)
        return replaced(self._parameters, args, kwargs, key, x)

    def _quantize_all(self, x: Any, adjacency: Any, flow: str) -> Any:
        """Features of all nodes, or a pair: of those that send and those that receive."""
        self._call = self._calls.begin()
        if isinstance(x, Tensor):
            buckets = self._buckets(x, adjacency, flow, False)
            self.context.receivers = buckets
            return self._quantize(x, buckets)
        if isinstance(x, Mapping):
            return {node_type: self._of_type(node_type, x[node_type]) for node_type in x}
        if not isinstance(x, (tuple, list)):
            return x
        senders, receivers = x
        buckets = self._buckets(senders, adjacency, flow, True)
        quantized = self._quantize(senders, buckets)
        if receivers is None:
            self.context.receivers = None
            return quantized, None
        if receivers is senders:
            self.context.receivers = buckets
            return quantized, quantized
        buckets = self._buckets(receivers, adjacency, flow, False)
        self.context.receivers = buckets
        return quantized, self._quantize(receivers, buckets)

    def _of_type(self, node_type: str, x: Tensor) -> Tensor:
        """Features of one node type, for layers that take a mapping of all."""
        name = f"{self.site.name}.{node_type}"
        buckets = self.context.buckets(name, x.size(0), None, "", False, self._by_degree)
        return self._quantize(x, buckets)

    def _buckets(self, x: Tensor, adjacency: Any, flow: str, sources: bool) -> DegreeBuckets | None:
        if x.dim() == 2:
            name, num_rows = self.site.name, x.size(0)
            return self.context.buckets(name, num_rows, adjacency, flow, sources, self._by_degree)
        if self._by_degree:
            raise NotImplementedError(
                f"{self.site.name}: bits by degree need features of shape (N, F), got "
                f"{tuple(x.shape)}. Give {self.site.name} one number of bits."
            )
        return None

    def _quantize(self, x: Tensor, buckets: DegreeBuckets | None) -> Tensor:
        """Quantizes one matrix, or finds it done already."""
        form = None if torch.compiler.is_compiling() else self.context.form
        if is_packed(x):
            self._expected.check(x, self.bits)
            self._call.seen.append(Seen(x.shape, buckets, None, stored=stored_of(x)))
            return x if form is None else form.stored(x, waits=self._evaluating)
        if set(self.bits) == {FULL_PRECISION} or x.numel() == 0:
            source = None if torch.compiler.is_compiling() else weakref.ref(x)
            self._call.seen.append(Seen(x.shape, buckets, None, source))
            return x if form is None else form.rows(x)
        if not x.is_floating_point():
            raise TypeError(
                f"{self.site.name}: features are {x.dtype}, which cannot be quantized. Cast them "
                f"with x.float(), or give {self.site.name} {FULL_PRECISION} bits."
            )
        if x.layout != torch.strided:
            raise TypeError(
                f"{self.site.name}: features are {x.layout}, which are quantized as codes alone: "
                f"set data.x = pack(data.x, bits=…), or give {self.site.name} {FULL_PRECISION} "
                f"bits."
            )
        if torch.compiler.is_compiling():
            return self._quantize_now(x, buckets)
        may_recur = not x.requires_grad and not x.is_inference()
        done = self._static.find(x, buckets) if may_recur else None
        if done is not None:
            if done.found is not None and self.context.calibrating:
                self._keep_range(done.found)
            self._call.seen.append(done.seen)
            # An evaluation may have kept it, training may need it: there nothing may wait.
            known = done.quantized
            return known if form is None else form.stored(known, waits=self._evaluating)
        if form is not None and self._evaluating:
            quantize = self._pack
        else:
            if may_recur or x.device.type == "cpu":  # elsewhere the check would wait
                self._check_finite(x)
            quantize = self._quantize_now if form is None else self._quantize_rows
        self._found = None
        if not may_recur:
            return quantize(x, buckets)
        with torch.inference_mode(False):  # the result may be needed in training, too
            quantized = quantize(x, buckets)
        quantized._outlives_step = True  # type: ignore[attr-defined]  # no activation to compress
        seen = self._call.seen.pop()
        self._call.seen.append(self._static.keep(x, buckets, quantized, seen, self._found).seen)
        return quantized

    def _quantize_now(self, x: Tensor, buckets: DegreeBuckets | None) -> Tensor:
        """The rematched features."""
        rows = x.reshape(-1, x.size(-1))
        range = self.quantizer.find_range(rows, self.bits, buckets)
        self._call.seen.append(Seen(rows.shape, buckets, range))
        return self.quantizer.apply(rows, self.bits, buckets, range).view_as(x)

    def _quantize_rows(self, x: Tensor, buckets: DegreeBuckets | None) -> Tensor:
        """The rematched features, in the form of features that stay floats."""
        assert self.context.form is not None
        return self.context.form.rows(self._quantize_now(x, buckets))

    @torch.no_grad()
    def _pack(self, x: Tensor, buckets: DegreeBuckets | None) -> Tensor:
        """The codes, by the range that an evaluation found before, if one did."""
        assert self.context.form is not None
        range: Range | CalibratedRange
        if self.quantizer.granularity == "row" and self.quantizer.range != "minmax":
            range = self.quantizer.find_range(x, self.bits, buckets)  # nothing is shared
        else:
            range = self._calibrated_range(x, buckets)
        try:
            packed = self.context.form.pack(x, self.bits, buckets, range)
        except ValueError as error:
            raise ValueError(f"{self.site.name}: {error}") from error
        self._call.seen.append(Seen(x.shape, buckets, None, stored=stored_of(packed)))
        return packed

    def _calibrated_range(self, x: Tensor, buckets: DegreeBuckets | None) -> CalibratedRange:
        """The range that is known for this call and place, or the one that is found now."""
        known = self._known.find(self._place, x.size(1))
        if known is not None and not self.context.calibrating:
            return known.range
        found = self.quantizer.find_range(x, self.bits, buckets)
        self._found = KnownRange.of(found, buckets, self.quantizer.granularity)
        self._keep_range(self._found)
        return self._found.range

    @property
    def _place(self) -> tuple[int, int]:
        """Which call it is, and which of its features: of senders, or of receivers."""
        return self._call.number, len(self._call.seen)

    def _keep_range(self, found: KnownRange) -> None:
        self._known.keep(self._place, found, join=self.context.in_step)

    def _check_finite(self, x: Tensor) -> None:
        try:
            check_finite(x, remedy=", or lower the learning rate if it is training that diverged")
        except ValueError as error:
            raise ValueError(f"{self.site.name}: {error}") from None

    def install(self, layer: nn.Module) -> None:
        """Becomes the forward pre-hook of ``layer``."""
        self._handle = layer.register_forward_pre_hook(self, with_kwargs=True)

    def uninstall(self) -> None:
        """Leaves its layer."""
        self._handle.remove()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_call": Call(0), "_found": None, "_static": StaticInputs()}
