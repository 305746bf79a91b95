"""Graph neural networks by name."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn
from torch_geometric.nn.models import GAT, GCN, GIN, GraphSAGE

from lit_gnncompress.models.agnn import AGNN
from lit_gnncompress.plan import near_matches

ModelName = Literal["gcn", "sage", "gin", "gat", "gatv2", "agnn"]


def build_backbone(
    name: ModelName,
    in_channels: int,
    hidden_channels: int,
    num_layers: int,
    out_channels: int,
    dropout: float = 0.5,
    heads: int | None = None,
) -> nn.Module:
    """Build a network that maps node features to one score a class.

    All but AGNN are PyG's own ``BasicGNN`` models, with ReLU between layers (ELU for GAT and
    GATv2, as in their papers).

    Args:
        name: ``"gcn"`` (arXiv 1609.02907), ``"sage"`` (1706.02216), ``"gin"`` (1810.00826),
            ``"gat"`` (1710.10903), ``"gatv2"`` (2105.14491) or ``"agnn"`` (1803.03735).
        in_channels: Width of the input features.
        hidden_channels: Width of hidden features. For GAT and GATv2 it is the width of all heads
            together, a multiple of ``heads``.
        num_layers: Number of message passing layers.
        out_channels: Number of classes.
        dropout: Probability of dropping a hidden feature, and for GAT and GATv2 an attention
            coefficient.
        heads: Attention heads of GAT and GATv2, ``None`` for 8. The last layer averages its
            heads.

    Returns:
        A module called with ``(x, edge_index)``.

    Raises:
        ValueError: If the name is unknown, ``heads`` is given to a network without heads, or
            does not divide ``hidden_channels``.
    """
    names = get_args(ModelName)
    if name not in names:
        hint = near_matches(str(name).lower(), names)
        raise ValueError(f"No network is named {name!r}.{hint} Known: {', '.join(names)}")
    sizes = (in_channels, hidden_channels, num_layers)
    if name in ("gat", "gatv2"):
        heads = 8 if heads is None else heads
        if heads < 1 or (num_layers > 1 and hidden_channels % heads):
            raise ValueError(
                f"hidden_channels={hidden_channels} is the width of all heads together and must "
                f"be a multiple of heads={heads}: GAT's paper has 8 heads of 8, hidden_channels=64"
            )
        return GAT(
            *sizes, out_channels, dropout=dropout, act="elu", heads=heads, v2=name == "gatv2"
        )
    if heads is not None:
        raise ValueError(f"heads={heads} means nothing to {name!r}: only 'gat' and 'gatv2' have it")
    if name == "agnn":
        return AGNN(*sizes, out_channels=out_channels, dropout=dropout)
    basic = {"gcn": GCN, "sage": GraphSAGE, "gin": GIN}[name]
    return basic(*sizes, out_channels, dropout=dropout)
