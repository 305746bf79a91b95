import copy

import pytest
import torch
from torch import nn

from lit_gnncompress.embedding import (
    PartitionEmbedding,
    TTEmbedding,
    TTEmbeddingBag,
    TTEmbeddingBagCollection,
)
from lit_gnncompress.embedding.joined_lookup import JoinedLookup
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


def close(there, here):
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags(mode):
    torch.manual_seed(0)
    here = TTEmbeddingBag(
        N, 24, mode=mode, rank=5, order=random_order(N, ROWS), padding_idx=3, parts=True
    )
    there = copy.deepcopy(here).cuda()
    input, offsets = torch.randint(N, (300,)), torch.tensor([0, 0, 7, 7, 250])
    args = (input, offsets, torch.rand(300)) if mode == "sum" else (input, offsets)
    outs = here(*args), there(*(arg.cuda() for arg in args))
    close(outs[1], outs[0])
    for out in outs:
        out.square().sum().backward()
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        close(other.grad, one.grad)


def test_collections():
    torch.manual_seed(0)
    sizes = {N: (10, 12, 10), 300: (5, 6, 10), 77: (4, 5, 4)}
    here = TTEmbeddingBagCollection(
        [TTEmbeddingBag(n, 24, rank=5, rows=rows, padding_idx=3) for n, rows in sizes.items()]
    )
    there = copy.deepcopy(here).cuda()
    categories = torch.randint(77, (200, 3))
    bags = [(torch.randint(n, (40,)), torch.tensor([0, 5, 5])) for n in sizes]
    there(categories.cuda()).sum().backward()  # compiles
    there.zero_grad()
    moved = categories.cuda()
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = there(moved)
        found.square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    expected = here(categories)
    close(found, expected)
    expected.square().sum().backward()
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        close(other.grad, one.grad)
    on_gpu = [tuple(tensor.cuda() for tensor in of_table) for of_table in bags]
    for one, other in zip(there(on_gpu), here(bags), strict=True):
        close(one, other)


def test_joined_lookups():
    torch.manual_seed(0)
    sizes = {N: (10, 12, 10), 300: (5, 6, 10), 77: (4, 5, 4)}
    here = nn.ModuleList(TTEmbedding(n, 24, 3, rank=5, rows=rows) for n, rows in sizes.items())
    there, look_up = copy.deepcopy(here).cuda(), JoinedLookup()
    categories = torch.randint(77, (200, 3))
    moved = categories.cuda()
    torch.stack(look_up(list(there), moved), 1).sum().backward()  # compiles
    there.zero_grad()
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = torch.stack(look_up(list(there), moved), 1)
        found.square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    expected = torch.stack(look_up(list(here), categories), 1)
    close(found, expected)
    expected.square().sum().backward()
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        close(other.grad, one.grad)
