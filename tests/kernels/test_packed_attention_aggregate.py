import pytest
import torch

from lit_gnncompress.kernels.adjacency import Adjacency
from lit_gnncompress.kernels.attention_aggregate import attention_aggregate
from lit_gnncompress.kernels.packed_attention_aggregate import packed_attention_aggregate
from lit_gnncompress.kernels.reference.packed_attention_aggregate import (
    packed_attention_aggregate as reference,
)
from tests.kernels.conftest import random_edges, random_packed, strided

NODES, TARGETS = 50, 37


def scores(heads, sources=NODES, targets=TARGETS):
    generator = torch.Generator().manual_seed(heads)
    return [torch.randn(rows, heads, generator=generator) * 3 for rows in (sources, targets)]


def adjacency_of(targets=TARGETS, sources=NODES):
    return Adjacency(*random_edges(targets, sources))


@pytest.mark.parametrize(("heads", "channels"), [(8, 8), (3, 5)])
def test_as_the_reference(heads, channels, bits, by_row):
    assert_as_the_reference(heads, channels, bits, by_row)


@pytest.mark.parametrize(("heads", "channels"), [(1, 16), (2, 200)])
def test_widths(heads, channels):
    assert_as_the_reference(heads, channels, 4, True)


def assert_as_the_reference(heads, channels, bits, by_row):
    rows, edges = random_packed(NODES, heads * channels, bits, by_row), adjacency_of()
    for alpha_range in (None, torch.tensor([[0, 1 / 15, 15]])):
        for renormalize in (True, False):
            actual = packed_attention_aggregate(
                *rows.args, *scores(heads), edges, alpha_range=alpha_range, renormalize=renormalize
            )
            expected = reference(
                *rows.args, *scores(heads), edges.rowptr, edges.col, 0.2, alpha_range, renormalize
            )
            torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("sources", "targets"), [(0, 0), (0, 3), (1, 1), (5, 0), (3000, 2000)])
def test_sizes(sources, targets):
    rows, edges = random_packed(sources, 64, 4), adjacency_of(targets, sources)
    actual = packed_attention_aggregate(*rows.args, *scores(8, sources, targets), edges)
    expected = attention_aggregate(rows.dense, *scores(8, sources, targets), edges)
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-4)


def test_not_contiguous():
    rows, edges = random_packed(NODES, 64, 4), adjacency_of()
    packed, *rest = rows.args
    actual = packed_attention_aggregate(strided(packed), *rest, *map(strided, scores(8)), edges)
    assert torch.equal(actual, packed_attention_aggregate(packed, *rest, *scores(8), edges))


def test_the_gradient_is_refused():
    rows, edges = random_packed(NODES, 64, 4), adjacency_of()
    score_src, score_dst = scores(8)
    out = packed_attention_aggregate(*rows.args, score_src.requires_grad_(), score_dst, edges)
    with pytest.raises(RuntimeError, match=r"no gradient: it is for inference.*no_grad"):
        out.sum().backward()


def test_torch_knows_the_operation():
    rows, edges = random_packed(NODES, 16, 3), adjacency_of()
    args = (*rows.args, *scores(2), edges.rowptr, edges.col, 0.2, None, True)
    torch.library.opcheck(torch.ops.lit_gnncompress.packed_attention_aggregate.default, args)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 9}, "bits=9"),
        ({"width": 15}, "15 columns are not shared alike by 2 heads|width=15"),
        ({"packed": torch.zeros(NODES, 7, dtype=torch.uint8)}, "rows of 7 bytes"),
        ({"packed": torch.zeros(9, 8, dtype=torch.uint8)}, "9 rows of values"),
        ({"scale": torch.tensor([-1.0])}, r"scale\[0\]=-1.0.* max >= min"),
        ({"lo": torch.zeros(3)}, "lo must be float32 of shape"),
        ({"score_dst": torch.zeros(TARGETS, 3)}, "score_dst must be"),
        ({"alpha_range": torch.zeros(2, 3)}, "alpha_range must be"),
    ],
)
def test_errors(change, message):
    names = ("packed", "lo", "scale", "bits", "width")
    args = dict(zip(names, random_packed(NODES, 16, 4).args, strict=True))
    args["score_src"], args["score_dst"] = scores(2)
    args["adjacency"] = adjacency_of()
    with pytest.raises(ValueError, match=message):
        packed_attention_aggregate(**(args | change))
