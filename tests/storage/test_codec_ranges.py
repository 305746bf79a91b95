"""Ranges of no rows, and what codecs refuse to hold."""

import pytest
import torch

from lit_gnncompress.kernels import pack_bits
from lit_gnncompress.storage.codecs import Codec, DenseCodec, FloatCodec

ZERO, ONE = torch.zeros(1), torch.ones(1)


def test_no_rows_have_a_range_that_means_nothing():
    packed, none = pack_bits(torch.zeros(0, 20, dtype=torch.uint8), 3), torch.zeros(0)
    codec = DenseCodec(packed, none, none, 3, 20)
    assert (codec.lo.tolist(), codec.scale.tolist()) == ([0.0], [1.0])
    assert set(codec.tensors()) == {"codes", "scale"}


@pytest.mark.parametrize(
    ("by_column", "of"),
    [(False, r"\(5,\), one for each row"), (True, r"\(20,\), one for each column")],
)
def test_ranges_of_another_size_are_refused(by_column, of):
    packed = pack_bits(torch.zeros(5, 20, dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match=rf"scale must be float32 of shape \(1,\) or {of}, got"):
        DenseCodec(packed, ZERO, torch.ones(7), 3, 20, by_column)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("place", [59, 61, 63])
def test_codes_beyond_the_width_are_refused(bits, place):
    codes = torch.zeros(4, 64, dtype=torch.uint8)
    codes[2, place] = 1
    meta = {"codec": "dense", "rows": 4, "width": 59, "bits": bits}
    tensors = {"codes": pack_bits(codes, bits)}
    with pytest.raises(ValueError, match="what fills up the rows must be zero"):
        Codec.from_tensors(meta, tensors)
    assert Codec.from_tensors(meta, tensors, thorough=False).codes().sum() == 0
    tensors["codes"] = pack_bits(codes[:, :59], bits)
    assert Codec.from_tensors(meta, tensors).codes().shape == (4, 59)


@pytest.mark.parametrize("values", [torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3)])
def test_rows_that_are_no_float32_matrix_are_refused(values):
    of = rf"got {values.dtype} of shape \({', '.join(map(str, values.shape))},?\)"
    with pytest.raises(ValueError, match=rf"values must be a float32 matrix \(N, F\), {of}"):
        FloatCodec(values)
