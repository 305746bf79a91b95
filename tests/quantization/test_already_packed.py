import pickle
import warnings

import pytest
import torch
from torch_geometric.nn import SAGEConv

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization import quantize_
from lit_gnncompress.storage import pack
from tests.quantization.test_calls import EDGES, Shared


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(4, 5)


def test_features_that_come_in_other_bits_are_told_once(x):
    model, packed = Shared(), pack(x, 2)
    quantization = quantize_(model, BitPlan(features={"lin": 8}))
    told = r"lin: its features come packed in 2 bits, but the plan gives them 8.*give lin 2 bits"
    with pytest.warns(UserWarning, match=told):
        model(packed, EDGES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(packed, EDGES)
        pickle.loads(pickle.dumps(model))(packed, EDGES)  # nor by a copy
    quantization.remove()
    quantize_(model, BitPlan(features={"conv": 8}))
    with pytest.warns(UserWarning, match=r"lin: .* in 2 bits, but the plan gives them 32 bits"):
        model(packed, EDGES)


def test_features_that_come_packed_while_quantization_is_off_are_told(x):
    quantization = quantize_(Shared(), BitPlan(features=2))
    quantization.enabled = False
    with pytest.warns(UserWarning, match=r"lin: .* in 2 bits, but quantization is off"):
        quantization.module(pack(x, 2), EDGES)


def test_features_that_come_in_the_plans_bits_are_welcome(x, recwarn):
    degrees = EDGES[1].bincount(minlength=4)
    for bits, plan in ((4, BitPlan(4)), ([8, 4], BitPlan([8, 4], degree_splits=[2]))):
        splits = [2] if isinstance(bits, list) else []
        conv = SAGEConv(5, 5)
        quantize_(conv, plan)
        conv(pack(x, bits, degrees=degrees, degree_splits=splits), EDGES)
    assert not [each for each in recwarn if "come packed" in str(each.message)]
