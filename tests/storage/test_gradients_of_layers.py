"""What layers on packed features return in training: ordinary features, which gradients pass."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

from lit_gnncompress import BitPlan
from lit_gnncompress.quantization import quantize_
from lit_gnncompress.storage.packed_sites import use_packed_form

EDGES = torch.randint(0, 30, (2, 150), generator=torch.Generator().manual_seed(0))
LAYERS = {
    "gcn": GCNConv,
    "gcn without bias": partial(GCNConv, bias=False),
    "sage": SAGEConv,
    "gat": GATConv,
}


class _Reverse(torch.autograd.Function):
    """An operation that tensors are given to past ``__torch_function__``."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -grad


class Model(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.first, self.beside, self.last = layer(8, 8), layer(8, 8), layer(8, 3)
        self.between = _Reverse.apply

    def forward(self, x, edge_index):
        self.hidden = self.between(self.first(x, edge_index))
        return self.last(self.hidden + self.beside(x, edge_index), edge_index)


@pytest.fixture(params=LAYERS)
def model(request):
    """A model that has been evaluated, so that its input is kept in codes."""
    plan = BitPlan({"first": 8, "beside": 4, "last": 8})
    quantization = quantize_(Model(LAYERS[request.param]), plan)
    use_packed_form(quantization)
    model = quantization.module
    model.x = torch.rand(30, 8)
    with torch.no_grad():
        model.eval()(model.x, EDGES)
    return model.train()


def expect_gradients(model):
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_a_function_of_ones_own(model):
    model(model.x, EDGES).square().sum().backward()
    expect_gradients(model)


def test_backward_hooks(model):
    seen = []
    for layer in (model.first, model.last):
        layer.register_full_backward_hook(lambda *grads: seen.append(grads[2][0].shape))
    model(model.x, EDGES).square().sum().backward()
    assert seen == [(30, 3), (30, 8)]
    expect_gradients(model)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(model, use_reentrant):
    model.between = partial(checkpoint, torch.sigmoid, use_reentrant=use_reentrant)
    model(model.x, EDGES).square().sum().backward()
    expect_gradients(model)


def test_gradients_of_hidden_features(model):
    loss = model(model.x, EDGES).square().sum()
    (grad,) = torch.autograd.grad(loss, model.hidden)
    assert grad.shape == (30, 8)
    assert grad.any()
