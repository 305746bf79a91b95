import pytest
import torch
from torch_geometric.nn import GAT

from lit_gnncompress import BitPlan, ledger_of, quantize_
from lit_gnncompress.search import Space
from lit_gnncompress.storage.site_sizes import site_sizes
from tests.callbacks.tiny import make_graph

GRAPH = make_graph(60, with_degrees=True)


def ledger(bits, splits=()):
    torch.manual_seed(0)
    module = GAT(8, 16, 2, 3, heads=2).eval()
    quantization = quantize_(module, BitPlan(bits, bits, splits))
    quantization.publish(60, GRAPH.deg)
    with torch.no_grad():
        module(GRAPH.x, GRAPH.edge_index)
    return ledger_of(quantization)


def test_elements_are_rows_times_width():
    sizes = {size.site: size.elements for size in site_sizes({8: ledger(8)})}
    edges = int((GRAPH.edge_index[0] != GRAPH.edge_index[1]).sum()) + 60  # self-loops are added
    assert sizes["convs.0", "features"] == (60 * 8,)
    assert sizes["convs.1", "features"] == (60 * 16,)
    assert sizes["convs.0", "attention"] == (2 * edges,)


def test_buckets_are_told_apart():
    sizes = site_sizes({8: ledger(8, [5])}, num_buckets=2)
    low = int((GRAPH.deg < 5).sum())
    assert sizes[0].elements == (8 * low, 8 * (60 - low))


@pytest.mark.parametrize("splits", [(), (5,)])
def test_bytes_of_a_plan_are_those_of_its_ledger(splits):
    ledgers = {bits: ledger(bits, splits) for bits in (2, 4, 8, 32)}
    sizes = site_sizes(ledgers, len(splits) + 1)
    space = Space(sizes, (2, 4, 8), "bucket", splits, count="stored")
    for bits in (2, 4, 8):
        found = ledgers[bits]
        assert space.num_bytes(space.uniform(bits)) == found.bytes_real - found.bytes_buckets
    paper = Space(sizes, (2, 4, 8), "bucket", splits)
    assert paper.saving(paper.uniform(4)) == pytest.approx(ledgers[4].saving_paper_count)


def test_no_ledgers():
    with pytest.raises(ValueError, match="ledgers is empty"):
        site_sizes({})
