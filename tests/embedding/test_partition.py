import copy
import math

import pytest
import torch

from lit_gnncompress.embedding import PartitionEmbedding
from tests.embedding.tables import random_order

N, ROWS = 100, (4, 5, 6)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def make(levels=None, rows=ROWS, **arguments):
    return PartitionEmbedding(N, 8, random_order(N, rows), levels, **arguments)


@pytest.mark.parametrize("rows", [(10, 11), ROWS, (3, 4, 3, 3)])
def test_rows_are_sums_over_the_parts_of_all_levels(rows):
    order, table = random_order(N, rows), make(rows=rows)
    assert table.levels == tuple(range(1, len(rows)))
    expected = 0
    for level, vectors in zip(table.levels, table.parts.tables, strict=True):
        assert len(vectors) == math.prod(rows[:level])
        expected = expected + vectors[order.place // math.prod(rows[level:])]
    torch.testing.assert_close(table.full_weight(), expected)
    torch.testing.assert_close(table(torch.tensor([[3, 99]])), expected[None, [3, 99]])


def test_nodes_of_a_part_share_its_vector():
    order, table = random_order(N, ROWS), make([1])
    out = table(torch.arange(N, dtype=torch.int32))
    assert out.shape == (N, 8)
    for part in range(4):
        rows = out[order.place // 30 == part]
        assert torch.equal(rows, rows[:1].expand_as(rows))
    assert len(out.unique(dim=0)) == 4


@pytest.mark.parametrize(("levels", "vectors"), [(None, 24), ([1], 4), ([2], 20), ([2, 1], 24)])
def test_parameters_are_counted(levels, vectors):
    table = make(levels)
    assert sum(p.numel() for p in table.parameters()) == vectors * 8
    assert table.compression_ratio == N / vectors
    assert table.num_bytes == 4 * (vectors * 8 + N)


def test_gradients_reach_the_parts_that_were_asked_for():
    order, table = random_order(N, ROWS), make()
    nodes = torch.tensor([1, 7, 7])
    table(nodes).sum().backward()
    for span, vectors in zip((30, 6), table.parts.tables, strict=True):
        counts = torch.bincount(order.place[nodes] // span, minlength=len(vectors))
        torch.testing.assert_close(vectors.grad, counts.float().unsqueeze(1).expand(-1, 8))


def test_padding_and_copies_and_states():
    table = make(padding_idx=-1)
    assert table.padding_idx == N - 1
    assert not table.full_weight()[-1].any()
    other = make(padding_idx=-1)
    other.load_state_dict(table.state_dict())
    compiled = torch.compile(table, fullgraph=True, backend="aot_eager")
    for same in (other, copy.deepcopy(table), compiled):
        assert torch.equal(same(torch.arange(N)), table(torch.arange(N)))


@pytest.mark.parametrize("levels", [None, [1]])
def test_entries_begin_with_the_asked_deviation(levels):
    order = random_order(10_000, (400, 5, 6))
    table = PartitionEmbedding(10_000, 64, order, levels, std=0.1)
    assert table.full_weight().std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make([3]), r"levels=\(3,\) must be some of \(1, 2\)"),
        (lambda: make([0, 1]), r"levels=\(0, 1\)"),
        (lambda: make([1, 1]), r"levels=\(1, 1\)"),
        (lambda: make([]), r"levels=\(\)"),
        (lambda: make(rows=(100,)), "order has a single factor"),
        (lambda: make(1), r"levels=1 must be a sequence, such as \[1\]"),
        (lambda: make(std=0), "std=0"),
        (lambda: make(padding_idx=100), "padding_idx=100"),
        (lambda: PartitionEmbedding(99, 8, random_order(N, ROWS)), "order has 100 nodes"),
        (lambda: make()(torch.tensor([0.5])), "indices must be int64 or int32"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_a_state_can_stand_in_for_the_table():
    table, other = make(), make()
    found = torch.func.functional_call(table, other.state_dict(), torch.arange(N))
    assert torch.equal(found, other(torch.arange(N)))


def test_a_state_of_another_order():
    state = make().state_dict()
    with pytest.raises(
        RuntimeError, match=r"rows: .* factors \(6, 5, 4\), the table here .* \(4, 5, 6\)"
    ):
        make().load_state_dict(state | {"rows": torch.tensor(ROWS).flip(0)})
    del state["rows"]
    with pytest.raises(RuntimeError, match=r"Missing key.*\"rows\""):
        make().load_state_dict(state)


def test_an_index_out_of_range_says_which_and_where():
    with pytest.raises(IndexError, match=r"indices\[0, 1\]=100 is no row: num_embeddings=100"):
        make()(torch.tensor([[0, N]]))
