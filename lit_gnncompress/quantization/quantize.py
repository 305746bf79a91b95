"""Fake quantization in any ``nn.Module``: put a plan to work, and take it out again."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lit_gnncompress.plan import FULL_PRECISION, BitPlan, match_layers
from lit_gnncompress.quantization.attention import (
    AttentionGranularity,
    AttentionSite,
    QuantizedAttention,
    can_quantize,
    check_attention,
    restore_attention,
    swap_attention,
)
from lit_gnncompress.quantization.calibration import SiteRanges
from lit_gnncompress.quantization.context import Form, GraphContext
from lit_gnncompress.quantization.feature_site import FeatureSite
from lit_gnncompress.quantization.quantizer import Quantizer, Rounding
from lit_gnncompress.quantization.ranges import Granularity, RangeMethod
from lit_gnncompress.quantization.sites import find_sites

AnySite = FeatureSite | AttentionSite


class EnterHook:
    """Forward pre-hook of the modules around sites: tells where a forward pass begins."""

    def __init__(self, context: GraphContext) -> None:
        self.context = context

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Tells the context."""
        if not torch.compiler.is_compiling():
            self.context.enter(module)


class LeaveHook:
    """Forward hook of the modules around sites: nothing unfinished leaves them."""

    def __init__(self, context: GraphContext) -> None:
        self.context = context

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The output, worked out."""
        if not torch.compiler.is_compiling():
            self.context.leave(module)
        return None if self.context.form is None else self.context.form.settle(output)


class GradHook:
    """Forward hook of the layers of sites: where gradients are asked for, nothing waits.

    Operations that are called from C++, such as those of an ``autograd.Function`` or a backward
    hook, do not see that what waits has a gradient.
    """

    def __init__(self, context: GraphContext) -> None:
        self.context = context

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The output, worked out."""
        form = self.context.form
        if form is None or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None
        return form.settle(output)


def _hook_around_sites(module: nn.Module, context: GraphContext) -> None:
    layers = list(dict.fromkeys(layer for layer, _ in _installed(module)))
    for layer in layers:
        layer.register_forward_hook(GradHook(context))
    for child in module.modules():
        inside = list(child.modules())[1:]
        if child not in layers and any(layer in inside for layer in layers):
            child.register_forward_pre_hook(EnterHook(context))
            # Also where an error leaves it: the next call is a pass of its own.
            child.register_forward_hook(LeaveHook(context), always_call=True)


def _unhook_around_sites(module: nn.Module) -> None:
    for child in module.modules():
        for hooks in (child._forward_pre_hooks, child._forward_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(hook, (EnterHook, LeaveHook, GradHook)):
                    del hooks[key]
                    child._forward_hooks_always_called.pop(key, None)


class Quantization:
    """A plan at work in a module: made by :func:`quantize_`, undone by :meth:`remove`.

    Attributes:
        module: The quantized module.
        plan: The plan.
        context: The switch and the graph in hand, shared by all sites.
    """

    def __init__(self, module: nn.Module, plan: BitPlan, context: GraphContext) -> None:
        self.module = module
        self.plan = plan
        self.context = context

    @property
    def sites(self) -> list[AnySite]:
        """All sites, those left at 32 bits too, in the order of ``named_modules``.

        Attention of classes that the registry does not know is missing.
        """
        return [site for _, site in _installed(self.module)]

    @property
    def enabled(self) -> bool:
        """Whether features and attention are quantized; settable."""
        return self.context.enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self.context.enabled = enabled

    @property
    def calibrated(self) -> dict[str, SiteRanges]:
        """Ranges that the latest evaluation found, by layer; settable."""
        sites = (site for site in self.sites if isinstance(site, FeatureSite))
        return {site.site.name: found for site in sites if (found := site.calibrated)}

    @calibrated.setter
    def calibrated(self, ranges: Mapping[str, SiteRanges]) -> None:
        for site in self.sites:
            if isinstance(site, FeatureSite):
                site.calibrated = ranges.get(site.site.name, [])

    def use_form(self, form: Form | None) -> None:
        """Makes sites give features another form than rematched floats, or those again."""
        self.context.form = form

    def publish(
        self,
        num_nodes: int | Mapping[str, int],
        degrees: Tensor | Mapping[str, Tensor] | None = None,
    ) -> None:
        """Tells the sites about the next graph; see :meth:`GraphContext.publish`."""
        self.context.publish(num_nodes, degrees)

    def is_of(self, module: nn.Module) -> bool:
        """Whether this plan is at work in ``module``."""
        return self.module is module and any(s.context is self.context for s in self.sites)

    def remove(self) -> nn.Module:
        """Gives the original module back, bit for bit."""
        return remove_quantization(self.module)


def quantize_(
    module: nn.Module,
    plan: BitPlan,
    *,
    range: RangeMethod | Mapping[str, RangeMethod] = "mse",
    granularity: Granularity | Mapping[str, Granularity] = "auto",
    rounding: Rounding = "nearest",
    percentile: float = 0.99,
    attention_range: RangeMethod = "minmax",
    attention_granularity: AttentionGranularity = "bucket",
    renormalize: bool = True,
) -> Quantization:
    """Quantizes the features and the attention of ``module`` by ``plan``, in place.

    The module keeps its parameters, buffers and ``state_dict``. What it computes changes: features
    and attention are rounded to their codes and back at every forward pass, and gradients pass
    straight through. Ranges are found on the fly.

    Args:
        module: Any module with PyG layers.
        plan: Bits by layer, component and degree.
        range: How the range of features is found, see :class:`Quantizer`; for all layers, or by
            name or glob (layers that are not named get the default).
        granularity: Which features share a range; likewise.
        rounding: Rounding of features and attention.
        percentile: Share of the values inside a percentile range.
        attention_range: How the range of attention is found; a degree bucket shares it.
        attention_granularity: Which coefficients share a range: those of a degree ``"bucket"``, or
            of a receiving ``"node"``, from 0 to their maximum: 4 bytes a node, worth it where
            neighbourhoods are large.
        renormalize: Whether a node's attention sums to 1 again after rematching.

    Returns:
        The handle to switch, to inform about graphs, and to remove the quantization.

    Raises:
        ValueError: A plan that does not fit the module, a module without message passing, or one
            that is quantized already.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> quantization = quantize_(GCN(8, 16, num_layers=2), BitPlan(features=4))
        >>> [site.site.name for site in quantization.sites]
        ['convs.0', 'convs.1']
    """
    if next(_installed(module), None) is not None:
        raise ValueError(
            f"{type(module).__name__} is quantized already: undo that with "
            f"remove() of its quantization, or with remove_quantization(module)."
        )
    layers = find_sites(module)
    table = plan.resolve(layers)
    ranges = _by_layer("range", range, layers, "mse")
    granularities = _by_layer("granularity", granularity, layers, "auto")
    context = GraphContext(plan.degree_splits, plan.degree_quantiles)
    for site, bits in table.items():
        if site.component == "attention" and min(bits) < FULL_PRECISION:
            check_attention(layers[site], site)
    for site, layer in layers.items():
        if site.component == "attention" and not can_quantize(layer):
            warnings.warn(
                f"{site.name}: attention of {type(layer).__name__} stays in fp32 and is not in the "
                f"ledger; register_attention teaches its class.",
                stacklevel=2,
            )
    if attention_granularity not in get_args(AttentionGranularity):
        raise ValueError(
            f"attention_granularity={attention_granularity!r} is none of "
            f"{', '.join(get_args(AttentionGranularity))}."
        )
    for_attention = Quantizer(attention_range, "bucket", rounding, percentile)
    quantizers = {
        name: Quantizer(ranges[name], granularities[name], rounding, percentile) for name in ranges
    }
    # Nothing can fail from here on. Sites at full precision are installed, too: the ledger must
    # see all bytes.
    for site, bits in table.items():
        layer = layers[site]
        if site.component == "features":
            FeatureSite(site, bits, quantizers[site.name], context, layer).install(layer)
        elif can_quantize(layer):
            swap_attention(
                layer,
                AttentionSite(
                    site, bits, for_attention, renormalize, context, attention_granularity
                ),
            )
    _hook_around_sites(module, context)
    _forget_compiled()
    context.plan = plan
    context.options = {
        "range": range,
        "granularity": granularity,
        "rounding": rounding,
        "percentile": percentile,
        "attention_range": attention_range,
        "attention_granularity": attention_granularity,
        "renormalize": renormalize,
    }
    return Quantization(module, plan, context)


def quantization_of(module: nn.Module) -> Quantization | None:
    """The plan at work in ``module``, or in a copy of a quantized one; ``None`` in a plain one."""
    for _, site in _installed(module):
        assert site.context.plan is not None
        return Quantization(module, site.context.plan, site.context)
    return None


def remove_quantization(module: nn.Module) -> nn.Module:
    """Undoes :func:`quantize_` in ``module`` or in the copy of a quantized one."""
    installed = list(_installed(module))
    for layer, site in installed:
        if isinstance(site, FeatureSite):
            site.uninstall()
        else:
            restore_attention(layer)
    _unhook_around_sites(module)
    if installed:
        _forget_compiled()
    return module


def _by_layer(argument: str, spec: Any, layers: Mapping, default: str) -> dict[str, Any]:
    names = [site.name for site in layers if site.component == "features"]
    if not isinstance(spec, Mapping):
        return dict.fromkeys(names, spec)
    return dict.fromkeys(names, default) | match_layers(argument, spec, names)


def _installed(module: nn.Module) -> Iterator[tuple[nn.Module, AnySite]]:
    for layer in list(module.modules()):
        for hook in list(layer._forward_pre_hooks.values()):
            if isinstance(hook, FeatureSite):
                yield layer, hook
        if isinstance(layer, QuantizedAttention):
            yield layer, layer.attention_site


def _forget_compiled() -> None:
    # torch.compile does not notice hooks and classes that change under a compiled module.
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
