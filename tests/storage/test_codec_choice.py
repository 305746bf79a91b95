"""The codec that is chosen is the smallest one, to the byte."""

import pytest
import torch

from lit_gnncompress.kernels import pack_bits
from lit_gnncompress.storage.codecs import DenseCodec, GapCodec, SparseCodec, choose_codec, encode
from lit_gnncompress.storage.codecs.sparse import Entries, scale_of_counts

ZERO, ONE = torch.zeros(1), torch.ones(1)


def sizes_of(codes, bits, lo, scale, *, unit=None, kept=None, by_column=False):
    """Bytes of each codec, made without any choice; ``kept=None`` derives the scale of the last."""
    width = codes.size(1)
    sizes = {"dense": DenseCodec(pack_bits(codes, bits), lo, scale, bits, width, by_column).nbytes}
    row, column = codes.nonzero(as_tuple=True)
    for kind in (SparseCodec, GapCodec):
        entries = Entries(row, column, codes[row, column], len(codes))
        sizes[kind.name] = kind.of([entries], lo, kept, bits, width, unit, by_column).nbytes
    return sizes


@pytest.mark.parametrize("ranges", ["tensor", "row", "column", "count"])
@pytest.mark.parametrize(("bits", "unit"), [(1, 1), (4, None), (8, None), (8, 9)])
def test_at_any_density(bits, unit, ranges):
    if ranges == "count" and unit is None:
        pytest.skip("a scale derives from counts where all codes are the same")
    rows, width, chosen = 20, 300, set()
    by_column, size = ranges == "column", {"tensor": 1, "column": width}.get(ranges, rows)
    generator = torch.Generator().manual_seed(0)
    lo, scale = torch.rand(size, generator=generator), torch.rand(size, generator=generator) + 1.5
    for share in torch.arange(24) / 23:
        codes = torch.randint(1, 2**bits, (rows, width), dtype=torch.uint8, generator=generator)
        codes = codes if unit is None else torch.full_like(codes, unit)
        codes *= torch.rand(rows, width, generator=generator) < share**2
        codes[0, :2] = torch.tensor([unit or 1, unit or 2])
        kept = scale
        if ranges == "count":
            scale, kept = scale_of_counts((codes != 0).sum(1), unit), None
        sizes = sizes_of(codes, bits, lo, scale, unit=unit, kept=kept, by_column=by_column)
        codec = choose_codec(codes, bits, lo, scale, by_column=by_column)
        assert codec.nbytes == min(sizes.values())
        assert torch.equal(codec.codes(), codes)
        chosen.add(codec.name)
    assert len(chosen) > 1


@pytest.mark.parametrize(("most", "expected"), [(255, "gaps"), (256, "dense")])
def test_counts_above_a_byte_take_two(most, expected):
    codes = torch.zeros(60, 544, dtype=torch.uint8)  # 68 bytes a row and its scale, dense
    codes[0, :most] = 1
    codes[1:, :63] = 1
    codes[1:14, 63] = 1  # so many that a byte more for each row decides
    scale = scale_of_counts(codes.sum(1), 1)
    sizes = sizes_of(codes, 1, ZERO, scale, unit=1)
    codec = choose_codec(codes, 1, ZERO, scale)
    assert min(sizes, key=sizes.get) == expected
    assert (codec.name, codec.nbytes) == (expected, sizes[expected])


@pytest.mark.parametrize(("width", "expected"), [(2**16, "sparse"), (2**16 + 1, "gaps")])
def test_columns_beyond_16_bits_take_four_bytes(width, expected):
    codes = torch.zeros(3, width, dtype=torch.uint8)
    codes[1, :10] = torch.arange(1, 11)  # gaps take 10 bytes, and 16 for where values begin
    sizes = sizes_of(codes, 4, ZERO, ONE, kept=ONE)
    codec = choose_codec(codes, 4, ZERO, ONE)
    assert min(sizes, key=sizes.get) == expected
    assert (codec.name, codec.nbytes) == (expected, sizes[expected])
    assert torch.equal(codec.codes(), codes)


def test_columns_of_one_value_keep_it():
    x = torch.tensor([[0.5, -1.0, 0.0], [0.5, 2.0, 0.0]])
    lo, hi = x.amin(0), x.amax(0)
    codec = encode(x, 2, lo, (hi - lo) / 3, by_column=True)
    assert torch.equal(codec.gather(), x)
    assert codec.codes()[:, [0, 2]].max() == 0


@pytest.mark.parametrize("unit", [1, 5])
def test_rows_whose_scale_derives_add_up_to_one(unit):
    torch.testing.assert_close(
        scale_of_counts(torch.tensor([0, 1, 4, 300]), unit),
        torch.tensor([1.0, 1.0, 1 / 4, 1 / 300]) / unit,
    )
    codes = torch.zeros(3, 900, dtype=torch.uint8)
    codes[0, :300] = codes[1, 5:9] = codes[2, 7] = unit
    for allow_gaps in (False, True):
        codec = choose_codec(
            codes, 4, ZERO, scale_of_counts((codes != 0).sum(1), unit), allow_gaps=allow_gaps
        )
        assert codec.name == ("gaps" if allow_gaps else "sparse")
        assert "scale" not in codec.tensors()
        for rows in (codec.gather(), codec.gather(torch.tensor([2, 0, 1]))):
            torch.testing.assert_close(rows.sum(1), torch.ones(3))


@pytest.mark.parametrize("by_column", [False, True])
def test_doubles_are_not_rounded_twice(by_column):
    x = torch.tensor([[0.5 + 1e-12, 0.5]], dtype=torch.float64)  # in float32, both are a half
    codec = encode(
        x,
        2,
        ZERO.expand(2 if by_column else 1),
        torch.ones(2 if by_column else 1),
        by_column=by_column,
    )
    assert codec.codes().tolist() == [[1, 0]]


def test_a_derived_scale_beside_a_minimum_of_each_row():
    codes = torch.zeros(2, 900, dtype=torch.uint8)
    codes[0, :30] = codes[1, 5:9] = 1
    lo, scale = torch.tensor([0.5, -1.0]), torch.tensor([1 / 30, 1 / 4])
    expected = codes * scale.unsqueeze(1) + lo.unsqueeze(1)
    for allow_gaps in (False, True):
        codec = choose_codec(codes, 1, lo, scale, allow_gaps=allow_gaps)
        assert "scale" not in codec.tensors()
        for index in ([0, 1], [1], [1, 0, 1]):
            torch.testing.assert_close(codec.gather(torch.tensor(index)), expected[index])
