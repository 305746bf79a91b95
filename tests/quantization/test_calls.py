import copy

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, SAGEConv

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization import Quantizer, quantize_
from lit_gnncompress.storage import ledger_of, pack
from lit_gnncompress.storage.packed_sites import use_packed_form

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
LOUD = 100.0


class Shared(nn.Module):
    """One convolution that is called twice, with features far apart in size."""

    def __init__(self, conv=None):
        super().__init__()
        self.lin = nn.Linear(5, 5)
        self.conv = conv or SAGEConv(5, 5)

    def forward(self, x, edge_index):
        h = self.conv(self.lin(x) * LOUD, edge_index)
        return self.conv(torch.tanh(h / LOUD), edge_index)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(4, 5)


def numbers(quantization, site="conv"):
    """The calls of which ranges are known."""
    return len(quantization.calibrated.get(site, []))


@pytest.mark.parametrize("passes", [1, 3])
def test_a_shared_layer_packs_what_fake_quantization_rounds(passes, x):
    model = Shared().eval()
    quantization = quantize_(model, BitPlan(features={"conv": 8}))
    with torch.no_grad():
        expected = model(x, EDGES)
        use_packed_form(quantization)
        model(x, EDGES)  # finds the ranges
        quantization.context.calibrating = False
        for _ in range(passes):
            actual = model(x, EDGES)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
    first, second = quantization.calibrated["conv"]
    assert first[0].hi > 10 * second[0].hi


@pytest.mark.parametrize("conv", [None, GATConv(5, 5)])
@pytest.mark.parametrize("packed", [False, True])
def test_the_ledger_counts_all_calls_of_the_latest_pass(conv, packed, x):
    model = Shared(copy.deepcopy(conv)).eval()
    twice = quantize_(model, BitPlan(features=8, attention={} if conv is None else 8))
    use_packed_form(twice, packed)
    with torch.no_grad():
        for _ in range(3):
            model(x, EDGES)
    book = ledger_of(twice)
    names = [(row.site, row.component) for row in book.rows if row.site == "conv"]
    per_call = len(names) // 2
    assert names == [
        ("conv", component) for component in ("features", "attention")[:per_call] for _ in range(2)
    ]
    assert book.bytes_fp32 >= 3 * x.numel() * 4


def test_passes_are_told_apart_after_an_error(x):
    class Fails(Shared):
        fails = True

        def forward(self, x, edge_index):
            h = self.conv(x, edge_index)
            if self.fails:
                raise RuntimeError
            return self.conv(h, edge_index)

    model = nn.Sequential(Fails())
    quantization = quantize_(model[0], BitPlan(features=8))
    for fails in (True, False):
        model[0].fails = fails
        try:
            model[0](x, EDGES)
        except RuntimeError:
            assert len(quantization.sites[1].seen) == 1
    assert len(quantization.sites[1].seen) == 2


def test_a_layer_called_outside_of_all_modules_is_a_pass_each_time(x):
    quantization = quantize_(Shared(), BitPlan(features=8))
    for _ in range(3):
        quantization.module.conv(x, EDGES)
    assert len(quantization.sites[1].seen) == 1


@pytest.mark.parametrize(("grad", "counts"), [(True, [2, 4]), (False, [1, 2])])
def test_a_training_step_counts_all_passes(grad, counts, x):
    quantization = quantize_(Shared(), BitPlan(features=8))
    with torch.set_grad_enabled(grad):
        for _ in range(2):
            quantization.context.begin_step()
            for view in (x, 5 * x):
                quantization.module(view, EDGES)
    assert [len(site.seen) for site in quantization.sites] == counts


def test_a_step_joins_the_ranges_of_all_passes(x):
    """Two views: either finds its values within the range."""
    model = Shared().eval()
    quantization = quantize_(model, BitPlan(features=8), range="minmax", granularity="tensor")
    use_packed_form(quantization)
    context = quantization.context
    with torch.no_grad():
        for views in ((x, 5 * x), (5 * x, x)):
            quantization.calibrated = {}
            context.begin_step()
            for view in views:
                model(view, EDGES)
            context.end_step()
            assert numbers(quantization) == 2
            [[lin]] = quantization.calibrated["lin"]
            assert torch.equal(torch.cat([lin.lo, lin.hi]).flatten(), 5 * torch.stack(x.aminmax()))


def test_ranges_of_an_input_that_recurs_join_those_of_others(x):
    quantization = quantize_(
        SAGEConv(5, 5).eval(), BitPlan(8), range="minmax", granularity="tensor"
    )
    use_packed_form(quantization)
    inputs = [x, 3 * x]
    with torch.no_grad():
        for order in ([0, 1], [1, 0]):
            quantization.calibrated = {}
            for place in order:
                quantization.context.begin_step()
                quantization.module(inputs[place], EDGES)
            [[found]] = quantization.calibrated[""]
            assert found.hi.item() == inputs[1].max().item()


def test_senders_that_come_packed_leave_receivers_their_range(x):
    conv = SAGEConv(5, 5).eval()
    quantization = quantize_(conv, BitPlan(8))
    use_packed_form(quantization)
    with torch.no_grad():
        out = conv((pack(x, 8), x[:3]), EDGES.clamp(max=2))
        assert quantization.calibrated[""][0][0] is None
        quantization.context.calibrating = False
        assert torch.equal(conv((pack(x, 8), x[:3]), EDGES.clamp(max=2)), out)
    expected = Quantizer()(x[:3], 8)
    assert quantization.calibrated[""][0][1].hi >= expected.max() - 1e-6
