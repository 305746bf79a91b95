"""Kernels do the same whatever torch's default dtype is, which precision plugins change."""

import pytest
import torch

from lit_gnncompress.kernels import (
    Adjacency,
    aggregate,
    aggregate_pack,
    tt_embedding_bag,
    tt_lookup,
)
from lit_gnncompress.kernels.edge_dot import edge_dot
from lit_gnncompress.storage import pack
from tests.kernels.conftest import random_cores

ROWS, COLUMNS, RANKS = (7, 6, 5), (2, 3, 2), (3, 4)


@pytest.fixture(params=[torch.float64, torch.bfloat16, torch.float16], ids=str)
def default(request):
    before = torch.get_default_dtype()
    yield lambda: torch.set_default_dtype(request.param)
    torch.set_default_dtype(before)


def graph(nodes=50, edges=400):
    return Adjacency.from_edge_index(*torch.randint(0, nodes, (2, edges)), nodes, nodes)


def look_up(cores, weights):
    indices = torch.arange(400) * 17 % 210
    offsets = torch.arange(0, 401, 4)
    return tt_lookup(indices, cores), tt_embedding_bag(indices, offsets, cores, weights)


def test_tensor_trains(default):
    leaves = [*random_cores(ROWS, COLUMNS, RANKS), torch.randn(400)]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]

    def run():
        out = look_up(leaves[:-1], leaves[-1])
        return [*out, *torch.autograd.grad(sum(one.square().sum() for one in out), leaves)]

    expected = run()
    default()
    for found, wanted in zip(run(), expected, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)


def test_sums_that_are_packed(default):
    arguments = torch.randn(50, 20), graph(), 3, torch.rand(400)
    expected = aggregate_pack(*arguments)
    default()
    for found, wanted in zip(aggregate_pack(*arguments), expected, strict=True):
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_packed_rows(default, sparse):
    adjacency, weight = graph(), torch.randn(9, 20)
    x = torch.randn(50, 20).relu() * (torch.rand(50, 20) < (0.1 if sparse else 1))

    def run():
        packed = pack(x, bits=4)
        rows = packed.gather_rows(torch.arange(0, 50, 3))
        sums = packed.aggregate_rows(adjacency, None, "sum")
        return packed.dequantize(), rows, packed.linear(weight), sums

    expected = run()
    default()
    for found, wanted in zip(run(), expected, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)


def test_rows_of_a_graph(default):
    adjacency = graph()
    x, y = torch.randn(50, 16), torch.randn(50, 16)

    def run():
        return edge_dot(x, y, adjacency, heads=2), aggregate(x, adjacency, reduce="max")

    expected = run()
    default()
    for found, wanted in zip(run(), expected, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)
