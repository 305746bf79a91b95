"""Sites: where a model's node features and attention are quantized."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import Linear as PyGLinear
from torch_geometric.nn import MessagePassing

from lit_gnncompress.plan import Site
from lit_gnncompress.quantization.attention import has_attention


def find_sites(module: nn.Module) -> dict[Site, nn.Module]:
    """All sites of ``module``, in the order of ``named_modules``.

    Features enter every :class:`~torch_geometric.nn.MessagePassing` layer and every linear layer
    outside of one; attention leaves every message-passing layer that computes a softmax. A linear
    layer that turns out not to see node features (by its number of rows) is left alone.

    Raises:
        ValueError: A module without message passing.
    """
    sites: dict[Site, nn.Module] = {}
    inside: list[str] = []  # message-passing layers; what they hold belongs to them
    for name, child in module.named_modules():
        if any(name.startswith(f"{prefix}.") or not prefix for prefix in inside):
            continue
        # torch.compile wraps the modules it compiles
        plain = ".".join(part for part in name.split(".") if part != "_orig_mod")
        if isinstance(child, MessagePassing):
            inside.append(name)
            sites[Site(plain, "features")] = child
            if has_attention(child):
                sites[Site(plain, "attention")] = child
        elif isinstance(child, (nn.Linear, PyGLinear)):
            sites[Site(plain, "features")] = child
    if not inside:
        raise ValueError(
            f"{type(module).__name__} has no message-passing layer, so there are no node features "
            f"to quantize. Expected PyG convolutions, or subclasses of "
            f"torch_geometric.nn.MessagePassing."
        )
    return sites
