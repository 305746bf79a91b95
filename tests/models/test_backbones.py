from typing import get_args

import pytest
import torch

from lit_gnncompress.models import ModelName, build_backbone

CYCLE = torch.stack([torch.arange(6), torch.arange(6).roll(1)])


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("name", get_args(ModelName))
def test_every_network_scores_every_class(name, num_layers):
    model = build_backbone(name, 5, 16, num_layers, 3)
    out = model(torch.rand(6, 5), CYCLE)
    out.sum().backward()
    assert out.shape == (6, 3)
    assert len(model.convs) == num_layers


def test_heads_share_the_hidden_width():
    conv = build_backbone("gat", 5, 64, 2, 3).convs[0]
    assert (conv.heads, conv.out_channels) == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gcm", 5, 16, 2, 3), r"No network is named 'gcm'. Did you mean 'gcn'\? Known: gcn, sage"),
        (("gat", 5, 20, 2, 3), "hidden_channels=20 .* multiple of heads=8"),
        (("gcn", 5, 16, 2, 3, 0.5, 4), "heads=4 means nothing to 'gcn'"),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(*arguments)
