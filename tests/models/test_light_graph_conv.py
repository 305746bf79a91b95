import pytest
import torch
from torch_geometric.nn import LGConv

from lit_gnncompress.models.light_graph_conv import LightGraphConv, symmetric_adjacency


@pytest.fixture
def edge_index():
    generator = torch.Generator().manual_seed(0)
    pairs = torch.stack([torch.randint(size, (60,), generator=generator) for size in (9, 20)])
    pairs[1] += 10  # node 9 has no edge
    pairs = pairs.unique(dim=1)
    return torch.cat([pairs, pairs.flip(0)], dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_as_pyg_forward_and_backward(edge_index, dtype):
    x = torch.randn(30, 7, dtype=dtype, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(30, 7, dtype=dtype, generator=torch.Generator().manual_seed(2))
    matrix = symmetric_adjacency(edge_index, 30)
    if dtype == torch.float64:  # PyG's own way
        matrix = torch.sparse_csr_tensor(
            matrix.crow_indices(),
            matrix.col_indices(),
            matrix.values().double(),
            matrix.shape,
            check_invariants=True,
        )
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = LightGraphConv(normalize=False)(ours, matrix)
    expected = LGConv()(theirs, edge_index)
    torch.testing.assert_close(out, expected, check_dtype=False, rtol=1e-5, atol=1e-6)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_float32_goes_by_the_kernel_and_edges_are_sorted_once(edge_index, monkeypatch):
    calls = []
    module = "lit_gnncompress.models.light_graph_conv"
    from lit_gnncompress.kernels import aggregate

    def watched(x, adjacency, weight):
        calls.append(adjacency)
        return aggregate(x, adjacency, weight)

    monkeypatch.setattr(f"{module}.aggregate", watched)
    conv, matrix = LightGraphConv(normalize=False), symmetric_adjacency(edge_index, 30)
    conv(conv(torch.randn(30, 4), matrix), matrix)
    assert len(calls) == 2
    assert calls[0] is calls[1]
    assert symmetric_adjacency(edge_index, 30) is matrix
    assert symmetric_adjacency(edge_index.clone(), 30) is not matrix


def test_edges_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"edge_index must have shape \(2, E\), got \(3, 4\)"):
        symmetric_adjacency(torch.zeros(3, 4, dtype=torch.long), 5)
    with pytest.raises(IndexError, match="5"):
        symmetric_adjacency(torch.tensor([[0, 5], [5, 0]]), 5)
