import json

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, SAGEConv

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization import quantize_
from lit_gnncompress.storage import Ledger, LedgerRow, ledger_of, pack

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 1, 2]])  # in-degrees 0, 2, 2, 1
X = torch.arange(64.0).view(4, 16)  # rows of 16 codes fill whole groups
FACTORS = torch.arange(1.0, 17)


class TwoConvs(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([SAGEConv(16, 20), SAGEConv(20, 2)])

    def forward(self, x, edge_index):
        return self.convs[1](self.convs[0](x, edge_index).relu(), edge_index)


def ledger(module, plan, x=X, **options):
    quantization = quantize_(module, plan, **options)
    module(x, EDGES)
    return ledger_of(quantization)


def test_a_plan_without_buckets_by_hand():
    book = ledger(TwoConvs(), BitPlan({"convs.0": 3, "convs.1": 2}), granularity="tensor")
    first, second = book.rows
    assert first == LedgerRow(
        site="convs.0", component="features", degrees="", rows=4, width=16, bits=3,
        bytes_codes=4 * 6,
        bytes_ranges=4,  # a scale; the minimum is zero
        bytes_lossless=4 * 4 * 16,
    )  # fmt: skip
    assert (second.rows, second.width, second.bytes_ranges) == (4, 20, 4)
    assert second.bytes_codes == 4 * 8  # 20 codes of 2 bits, filled up to 32
    assert (first.bytes_fp32, second.bytes_fp32) == (256, 320)
    assert (book.bytes_fp32, book.bytes_real, book.bytes_buckets) == (576, 24 + 4 + 32 + 4, 0)
    assert book.average_bits == pytest.approx((64 * 3 + 80 * 2) / 144)
    assert book.saving_paper_count == pytest.approx(32 / (352 / 144))
    assert book.saving_real == pytest.approx(576 / 64)


@pytest.mark.parametrize(
    ("granularity", "x", "ranges"),
    [
        ("tensor", X, 4),  # a scale; the minimum is zero
        ("tensor", X + 1, 8),
        ("bucket", X, 4),
        ("column", X * FACTORS + 1, 16 * 8),
        ("column", (X - X.amin(0)) * FACTORS, 16 * 4),
        ("column", X, 16 * 4 + 4),  # one scale for all, as all columns are as wide
        ("row", X * FACTORS[:4].view(4, 1) + 1, 4 * 8),
        ("row", (X - X.amin(1, keepdim=True)) * FACTORS[:4].view(4, 1), 4 * 4),
        ("auto", X, 4 * 4 + 4),  # rows far apart: minima of their own, one scale
    ],
)
def test_ranges_by_hand(granularity, x, ranges):
    book = ledger(SAGEConv(16, 5), BitPlan(4), x, range="minmax", granularity=granularity)
    assert book.rows[0].bytes_ranges == ranges


def test_rows_with_ranges_of_their_own_pay_for_them():
    x = (torch.arange(64).view(4, 16) % 3 == 0) * torch.tensor([[0.5], [1], [0.3], [0.7]])
    assert ledger(SAGEConv(16, 5), BitPlan(1), x).rows[0].bytes_ranges == 4 * 4


def test_sparse_inputs_count_as_their_codec():
    x = torch.zeros(4, 1600)
    x[:, ::400] = 0.25  # 4 ones a row, normalised: the scale follows from their number
    row = ledger(SAGEConv(1600, 5), BitPlan(1), x).rows[0]
    assert row.bytes_real < 4 * 1600 / 8
    assert row.bytes_ranges == 0
    assert row.bytes_real == pack(x, 1).packed_bytes


def test_buckets_by_hand():
    plan = BitPlan([32, 8, 1], degree_splits=[1, 2])
    book = ledger(SAGEConv(16, 5), plan, granularity="bucket")
    assert [row.degrees for row in book.rows] == ["0", "1", "2+"]
    assert [row.rows for row in book.rows] == [1, 1, 2]
    assert [row.bits for row in book.rows] == [32, 8, 1]
    assert [row.bytes_codes for row in book.rows] == [64, 16, 4]
    assert [row.bytes_ranges for row in book.rows] == [0, 8, 8]
    assert book.bytes_buckets == 4
    assert book.bytes_real == 64 + 16 + 4 + 8 + 8 + 4
    assert book.average_bits == pytest.approx((16 * 32 + 16 * 8 + 32 * 1) / 64)


def test_wider_buckets_are_named_by_both_ends_and_may_be_empty():
    book = ledger(SAGEConv(16, 5), BitPlan([8, 4, 2], degree_splits=[3, 9]))
    assert [row.degrees for row in book.rows] == ["0–2", "3–8", "9+"]
    assert [row.bytes_codes for row in book.rows][1:] == [0, 0]
    assert book.average_bits == 8


def test_attention_is_kept_but_not_in_the_papers_count():
    conv = GATConv(16, 4, heads=3, add_self_loops=False)
    # Small features: the softmax of large ones leaves exact zeros, and so a minimum of zero.
    book = ledger(conv, BitPlan(4, attention=3), X / 64, granularity="tensor")
    features, attention = book.rows
    assert (attention.component, attention.rows, attention.width) == ("attention", 5, 3)
    assert attention.bytes_codes == 6  # 15 coefficients of 3 bits, read in order
    assert attention.bytes_ranges == 8
    assert attention.bytes_lossless == attention.bytes_fp32 == 60
    assert book.average_bits == features.bits == 4
    assert book.saving_paper_count == 8
    assert book.bytes_real == (4 * 8 + 4) + (6 + 8)
    assert book.saving_real == pytest.approx((256 + 60) / 50)


def test_a_pair_counts_on_both_sides():
    quantization = quantize_(SAGEConv(16, 5), BitPlan(8), granularity="tensor")
    quantization.module((X, X[:3] + 1), EDGES.clamp(max=2))
    rows = ledger_of(quantization).rows
    assert [(row.site, row.rows, row.bytes_ranges) for row in rows] == [("", 4, 4), ("", 3, 8)]


def test_a_plan_that_leaves_all_alone_saves_nothing():
    book = ledger(TwoConvs(), BitPlan())
    assert book.average_bits == 32
    assert book.saving_paper_count == book.saving_real == 1
    assert book.bytes_real == book.bytes_fp32 == 576


def test_the_smallest_exact_size_is_told_beside():
    x = (torch.rand(4, 30) > 0.5).float()
    quantization = quantize_(SAGEConv(30, 5), BitPlan([8, 4], degree_splits=[2]))
    quantization.module(x, EDGES)
    assert [row.bytes_lossless for row in ledger_of(quantization).rows] == [2 * 4, 2 * 4]
    assert ledger_of(quantization).bytes_lossless == 16
    del x
    assert ledger_of(quantization).bytes_lossless == 4 * 4 * 30


def test_nothing_passed_nothing_counted():
    book = ledger_of(quantize_(TwoConvs(), BitPlan(4)))
    assert book == Ledger()
    assert (book.bytes_real, book.average_bits) == (0, 0)
    assert book.saving_real == book.saving_paper_count == 1


def test_plain_numbers_for_programs():
    book = ledger(TwoConvs(), BitPlan([8, 1], degree_splits=[2]))
    plain = json.loads(json.dumps(book.to_dict()))
    assert (
        plain["bytes_real"]
        == book.bytes_real
        == (sum(row["bytes_real"] for row in plain["rows"]) + plain["bytes_buckets"])
    )
    assert plain["average_bits"] == pytest.approx(4.5)
    assert plain["rows"][1]["degrees"] == "2+"
