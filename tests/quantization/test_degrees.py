import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csc_tensor, to_torch_csr_tensor

from lit_gnncompress.quantization import DegreeBuckets, in_degrees
from lit_gnncompress.quantization.degrees import out_degrees, quantile_splits

EDGES = torch.tensor([[0, 0, 0, 1, 3], [1, 2, 4, 2, 2]])
FORMS = {
    "edge_index": lambda: EDGES,
    "EdgeIndex": lambda: EdgeIndex(EDGES, sparse_size=(5, 5)),
    "CSR": lambda: to_torch_csr_tensor(EDGES.flip(0), size=(5, 5)),
    "CSC": lambda: to_torch_csc_tensor(EDGES.flip(0), size=(5, 5)),
    "COO": lambda: to_torch_coo_tensor(EDGES.flip(0), size=(5, 5)),
}
pytestmark = pytest.mark.filterwarnings("ignore:Sparse")


@pytest.mark.parametrize("form", FORMS)
def test_degrees_of_every_form_of_the_graph(form):
    assert in_degrees(FORMS[form](), 5).tolist() == [0, 1, 3, 0, 1]
    assert out_degrees(FORMS[form](), 5).tolist() == [3, 1, 0, 1, 0]
    assert in_degrees(FORMS[form](), 5).dtype == torch.int64


@pytest.mark.parametrize("form", ["edge_index", "EdgeIndex"])
def test_the_flow_turns_edges_around(form):
    assert in_degrees(FORMS[form](), 5, "target_to_source").tolist() == [3, 1, 0, 1, 0]
    assert out_degrees(FORMS[form](), 5, "target_to_source").tolist() == [0, 1, 3, 0, 1]


def test_duplicate_edges_count():
    assert in_degrees(torch.tensor([[0, 0, 1], [1, 1, 1]]), 3).tolist() == [0, 3, 0]
    assert in_degrees(torch.empty(2, 0, dtype=torch.long), 2).tolist() == [0, 0]


def test_a_node_at_a_split_is_above_it():
    degrees = torch.tensor([0, 3, 4, 15, 16, 1000])
    buckets = DegreeBuckets.from_degrees(degrees, (4, 16))
    assert buckets.index.tolist() == [0, 0, 1, 1, 2, 2]
    assert buckets.counts().tolist() == [2, 2, 2]
    assert buckets.take(torch.tensor([5, 0, 0])).index.tolist() == [2, 0, 0]
    assert buckets.first(3).counts().tolist() == [2, 1, 0]
    assert buckets.first(6) is buckets


def test_every_bucket_is_sampled_from_its_own_rows():
    buckets = DegreeBuckets(torch.tensor([2, 0, 2, 0, 0, 3, 0]), 4)
    sample = buckets.sample(4)
    assert sample[0].tolist() == [1, 3, 4, 6]
    assert sample[2].tolist() == [0, 0, 2, 2]
    assert sample[3].tolist() == [5] * 4
    assert buckets.sample(2)[0].tolist() == [1, 4]
    assert DegreeBuckets(torch.zeros(9, dtype=torch.long), 1).sample(3).tolist() == [[0, 3, 6]]


@pytest.mark.parametrize(
    ("quantiles", "splits"), [([0.5], (5,)), ([0.1, 0.9], (1, 9)), ([0.25, 0.5, 0.75], (2, 5, 7))]
)
def test_quantiles_split_the_nodes(quantiles, splits):
    degrees = torch.arange(10).flip(0)
    assert quantile_splits(degrees, quantiles) == splits
    counts = DegreeBuckets.from_degrees(degrees, splits).counts() / 10
    torch.testing.assert_close(counts.cumsum(0)[:-1], torch.tensor(quantiles), atol=0.05, rtol=0)


@pytest.mark.parametrize("quantiles", [[0.2], [0.6, 0.7]])
def test_quantiles_that_fall_together_are_refused(quantiles):
    degrees = torch.tensor([0, 0, 0, 0, 0, 7, 7, 7, 7, 9])
    with pytest.raises(
        ValueError, match=r"degree_quantiles=\[0.*fall on the degrees \[.*or degree_sp"
    ):
        quantile_splits(degrees, quantiles)
