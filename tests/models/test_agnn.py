import pytest
import torch

from lit_gnncompress.models import AGNN

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


def test_first_beta_is_fixed_and_the_others_learn():
    model = AGNN(5, 8, num_layers=3, out_channels=2)
    assert dict(model.named_parameters()).keys() == {
        "lin_in.weight", "lin_in.bias", "convs.1.beta", "convs.2.beta",
        "lin_out.weight", "lin_out.bias",
    }  # fmt: skip
    assert model.convs[0].beta == 1


def test_a_layer_averages_neighbours_by_softmax_of_cosine():
    model = AGNN(2, 2, num_layers=1, out_channels=2, dropout=0.0)
    for lin in (model.lin_in, model.lin_out):
        torch.nn.init.eye_(lin.weight)
        torch.nn.init.zeros_(lin.bias)
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    near, far = torch.tensor(1.0).exp(), torch.tensor(0.0).exp()  # cosine 1 and 0
    expected = torch.stack(
        [
            (near * x[0] + far * x[1]) / (near + far),
            (far * x[0] + near * x[1] + far * x[2]) / (near + 2 * far),
            (near * x[2] + far * x[1]) / (near + far),
        ]
    )
    torch.testing.assert_close(model(x, PATH), expected)


def test_reset_draws_new_weights_and_old_betas():
    model = AGNN(5, num_layers=2, out_channels=2)
    before = model.lin_in.weight.clone()
    torch.nn.init.zeros_(model.convs[1].beta)
    model.reset_parameters()
    assert not torch.equal(model.lin_in.weight, before)
    assert model.convs[1].beta == 1


def test_no_layers_are_refused():
    with pytest.raises(ValueError, match="num_layers=0 must be at least 1"):
        AGNN(5, num_layers=0, out_channels=2)
