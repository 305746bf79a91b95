"""Edges sorted by target, and kept."""

import torch

from lit_gnncompress.kernels import aggregate
from lit_gnncompress.storage.edges import adjacency_of, edges_of_matrix


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


def test_a_matrix_that_is_written_to_is_read_anew():
    matrix = torch.eye(4).to_sparse_csr()
    assert edges_of_matrix(matrix)[1] is None
    assert edges_of_matrix(matrix)[0] is edges_of_matrix(matrix)[0]
    matrix.values()[2] = 3
    assert edges_of_matrix(matrix)[1].tolist() == [1, 1, 3, 1]
    matrix.col_indices().copy_(torch.tensor([3, 2, 1, 0]))
    assert edges_of_matrix(matrix)[0].col.tolist() == [3, 2, 1, 0]
    matrix.values().fill_(1)
    assert edges_of_matrix(matrix)[1] is None


def test_weights_of_one_are_given_where_they_are_trained():
    matrix = torch.eye(4).to_sparse_csr().requires_grad_()
    assert edges_of_matrix(matrix)[1].requires_grad
