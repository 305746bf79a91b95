import pytest
import torch

from lit_gnncompress.models.dot_interaction import DotInteraction


@pytest.mark.parametrize("num_vectors", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [0, 3])
def test_products_are_those_of_each_pair(num_vectors, batch_size):
    interaction = DotInteraction(num_vectors)
    vectors = torch.randn(batch_size, num_vectors, 4, generator=torch.Generator().manual_seed(0))
    pairs = [(i, j) for i in range(num_vectors) for j in range(i)]
    expected = [(vectors[:, i] * vectors[:, j]).sum(1) for i, j in pairs]
    found = interaction(vectors)
    assert found.shape == (batch_size, interaction.num_products) == (batch_size, len(pairs))
    if pairs:
        torch.testing.assert_close(found, torch.stack(expected, dim=1))
    assert not interaction.state_dict()


def test_gradients():
    vectors = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(DotInteraction(4), vectors)
