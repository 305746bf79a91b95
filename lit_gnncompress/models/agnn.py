"""The attention-based graph neural network."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn import AGNNConv
from torch_geometric.nn.inits import reset
from torch_geometric.typing import Adj


class AGNN(nn.Module):
    """The network of `Attention-based Graph Neural Network for Semi-supervised Learning
    <https://arxiv.org/abs/1803.03735>`_: a linear layer and ReLU, propagation layers that weigh
    neighbours by the cosine of their features, and a linear layer.

    A propagation layer has one parameter, the inverse temperature beta. As in the paper, that
    of the first layer stays 1 and the others are learned.

    Args:
        in_channels: Width of the input features.
        hidden_channels: Width of the features that propagate.
        num_layers: Number of propagation layers, at least 1. What is called a 4-layer AGNN
            counts the two linear ones and has 2 here.
        out_channels: Width of the output.
        dropout: Probability of dropping a feature before the last linear layer.

    Raises:
        ValueError: If ``num_layers`` is below 1.
    """  # noqa: D205

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 16,
        num_layers: int = 3,
        *,
        out_channels: int,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers} must be at least 1 propagation layer")
        self.lin_in = nn.Linear(in_channels, hidden_channels)
        self.act = nn.ReLU()
        self.convs = nn.ModuleList(AGNNConv(requires_grad=layer > 0) for layer in range(num_layers))
        self.dropout = nn.Dropout(dropout)
        self.lin_out = nn.Linear(hidden_channels, out_channels)

    def reset_parameters(self) -> None:
        """Draw new weights; every beta starts at 1."""
        self.lin_in.reset_parameters()
        reset(self.convs)
        self.lin_out.reset_parameters()

    def forward(self, x: Tensor, edge_index: Adj) -> Tensor:
        """Compute the output of each node.

        Args:
            x: Node features, ``(num_nodes, in_channels)``.
            edge_index: Edges, ``(2, num_edges)`` int64 or a sparse tensor; self-loops are added.

        Returns:
            ``(num_nodes, out_channels)``.
        """
        x = self.act(self.lin_in(x))
        for conv in self.convs:
            x = conv(x, edge_index)
        return self.lin_out(self.dropout(x))
