import copy

import pytest
import torch

from lit_gnncompress.embedding import PartitionEmbedding, TTEmbedding
from tests.embedding.tables import random_order

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no GPU here.")

N, ROWS = 1000, (10, 12, 10)


@pytest.fixture(params=["plain", "ordered", "parts"])
def table(request):
    torch.manual_seed(0)
    order = random_order(N, ROWS)
    if request.param == "plain":
        return TTEmbedding(N, 24, rank=5, rows=ROWS)
    if request.param == "ordered":
        return TTEmbedding(N, 24, 3, rank=5, order=order, parts=True, learn_scale=True)
    return PartitionEmbedding(N, 24, order, padding_idx=3)


def test_as_on_a_cpu(table):
    there = copy.deepcopy(table).cuda()
    indices = torch.randint(N, (40, 5))
    here_out, there_out = table(indices), there(indices.cuda())
    torch.testing.assert_close(there_out.cpu(), here_out, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(there.full_weight().cpu(), table.full_weight(), rtol=1e-4, atol=1e-4)
    here_out.square().sum().backward()
    there_out.square().sum().backward()
    for one, other in zip(table.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(other.grad.cpu(), one.grad, rtol=1e-3, atol=1e-3)


def test_nothing_waits_for_the_gpu(table):
    table, indices = table.cuda(), torch.randint(N, (200,)).cuda()
    table(indices).sum().backward()  # compiles
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        table(indices).sum().backward()
        table.full_weight().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)
