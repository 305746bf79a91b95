"""Sparse tensors are packed as their dense forms are, which are never made."""

import pytest
import torch

from lit_gnncompress.storage import pack
from lit_gnncompress.storage.codecs import DenseCodec, SparseCodec

ROWS, WIDTH = 60, 40
DEGREES = torch.arange(ROWS) % 9


def features(kind, dtype=torch.float32, density=0.1):
    kept = torch.rand(ROWS, WIDTH) < density
    x = {
        "binary": torch.ones(ROWS, WIDTH),
        "counts": torch.randint(1, 5, (ROWS, WIDTH)).float(),
        "signed": torch.randn(ROWS, WIDTH),
        "negative": -torch.rand(ROWS, WIDTH),
    }[kind] * kept
    x[3], x[7] = 0, torch.rand(WIDTH) + 1  # a row of zeros, and one without any
    return (x / x.sum(1, keepdim=True).clamp(min=1) if kind == "binary" else x).to(dtype)


def tensors_of(packed):
    return [(block.meta(), block.tensors()) for block in packed.blocks]


def equal(packed, expected):
    for (meta, own), (wanted, theirs) in zip(tensors_of(packed), tensors_of(expected), strict=True):
        assert meta == wanted
        assert own.keys() == theirs.keys()
        for name, tensor in own.items():
            assert tensor.dtype == theirs[name].dtype
            assert torch.equal(tensor, theirs[name]), name
    return True


@pytest.mark.parametrize("granularity", ["auto", "tensor", "bucket", "column", "row"])
@pytest.mark.parametrize("range", ["mse", "minmax", "percentile"])
@pytest.mark.parametrize("kind", ["binary", "counts", "signed", "negative"])
def test_they_have_the_codes_and_ranges_of_the_dense_form(kind, range, granularity):
    x = features(kind)
    for bits in (1, 3, 8):
        options = {"bits": bits, "range": range, "granularity": granularity}
        assert equal(pack(x.to_sparse_csr(), **options), pack(x, **options))


@pytest.mark.parametrize("granularity", ["auto", "column", "row"])
@pytest.mark.parametrize("bits", [[8, 2, 1], [32, 4, 4]])
def test_bits_by_degree(bits, granularity):
    x = features("counts")
    options = {"bits": bits, "degrees": DEGREES, "degree_splits": [3, 20]}  # a bucket is empty
    options |= {"granularity": granularity}
    assert equal(pack(x.to_sparse(), **options), pack(x, **options))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_any_dtype_and_layout(dtype, layout):
    x = features("counts", dtype)
    assert equal(pack(x.to_sparse(layout=layout), 4), pack(x, 4))


def test_entries_of_one_place_are_added_up():
    place = torch.tensor([[0, 0, 1], [2, 2, 0]])
    x = torch.sparse_coo_tensor(place, torch.tensor([1.0, 2.0, 3.0]), (2, 3))
    assert pack(x, 8).dequantize().tolist() == [[0, 0, 3], [3, 0, 0]]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (4, 5)])
def test_nothing_is_stored(shape):
    packed = pack(torch.zeros(shape).to_sparse_csr(), 4)
    assert torch.equal(packed.dequantize(), torch.zeros(shape))


def test_a_matrix_that_would_not_fit_is_packed():
    rows, width = 100_000, 1_000_000  # dense, 400 GB
    row = torch.arange(rows)
    place = torch.stack([row.repeat(2), torch.cat([row % 1000, 999_999 - row % 1000])])
    x = torch.sparse_coo_tensor(place, torch.ones(2 * rows), (rows, width))
    packed = pack(x, 1)
    assert packed.packed_bytes < 2e6
    assert packed[99_999].nonzero().flatten().tolist() == [999, 999_000]


def test_many_entries_are_smaller_as_dense_codes():
    x = features("counts", density=0.9)
    assert isinstance(pack(x.to_sparse_csr(), 1).blocks[0], DenseCodec)
    assert isinstance(pack(features("counts").to_sparse_csr(), 8).blocks[0], SparseCodec)


def test_nan_is_named_by_row_and_column():
    x = features("counts")
    x[9, 5] = torch.nan
    with pytest.raises(ValueError, match="row 9, column 5 is nan"):
        pack(x.to_sparse_csr(), 4)
