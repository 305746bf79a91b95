import pytest
import torch

from lit_gnncompress.kernels import sort_edges
from lit_gnncompress.kernels.reference.sort_edges import sort_edges as reference


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("edges", [0, 1, 7, 1000])
def test_equals_reference(edges, dtype):
    generator = torch.Generator().manual_seed(edges)
    edge_index = torch.randint(0, 40, (2, edges), generator=generator).to(dtype)
    for source, target in (edge_index, edge_index.t().contiguous().t()):
        ours, expected = sort_edges(source, target, 50), reference(source, target, 50)
        for one, other in zip(ours, expected, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


def test_by_hand():
    rowptr, col, perm = sort_edges(torch.tensor([5, 6, 7, 8]), torch.tensor([2, 0, 2, 0]), 4)
    assert rowptr.tolist() == [0, 2, 2, 4, 4]
    assert col.tolist() == [6, 8, 5, 7]
    assert perm.tolist() == [1, 3, 0, 2]


def test_sorted_edges_have_no_perm_and_their_own_sources():
    source = torch.tensor([3, 1, 2], dtype=torch.int32)
    rowptr, col, perm = sort_edges(source, torch.tensor([0, 0, 1], dtype=torch.int32), 2)
    assert (rowptr.tolist(), col.tolist(), perm.numel()) == ([0, 2, 3], [3, 1, 2], 0)
    assert col.data_ptr() != source.data_ptr()


@pytest.mark.parametrize("wrong", [-1, 4])
def test_target_that_is_no_node(wrong):
    with pytest.raises(IndexError, match=rf"target\[2\]={wrong} .* num_targets=4"):
        sort_edges(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 3, wrong]), 4)


def test_ends_that_do_not_fit():
    with pytest.raises(ValueError, match="source must be int64 or int32"):
        sort_edges(torch.zeros(3), torch.zeros(3, dtype=torch.int64), 4)
    with pytest.raises(ValueError, match="source has 2 edges"):
        sort_edges(torch.zeros(2).long(), torch.zeros(3).long(), 4)
    with pytest.raises(ValueError, match="num_targets=-1"):
        sort_edges(torch.zeros(0).long(), torch.zeros(0).long(), -1)


def test_is_known_to_torch():
    op = torch.ops.lit_gnncompress.sort_edges.default
    args = (torch.tensor([0, 1, 0]), torch.tensor([1, 0, 1]), 3)
    torch.library.opcheck(op, args, test_utils=["test_schema", "test_faketensor"])
