"""Edges sorted by target, and kept."""

import torch

from lit_gnncompress.kernels import aggregate
from lit_gnncompress.storage.edges import adjacency_of


def test_edges_first_seen_in_inference_mode_can_be_trained_with():
    edges = torch.randint(31, (2, 200), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        adjacency_of(*edges.clone(), 31, 31)
    adjacency = adjacency_of(*edges.clone(), 31, 31)
    assert not adjacency.rowptr.is_inference()
    x = torch.randn(31, 3, requires_grad=True)
    weight = torch.rand(200, requires_grad=True)
    aggregate(x, adjacency, weight).sum().backward()
    expected = torch.zeros(31).index_add(0, edges[0], weight.detach())
    torch.testing.assert_close(x.grad, expected.unsqueeze(1).expand(-1, 3))
