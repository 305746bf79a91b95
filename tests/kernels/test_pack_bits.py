import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_gnncompress.kernels import pack_bits, unpack_bits
from lit_gnncompress.kernels.reference.pack_bits import pack_bits as reference
from tests.kernels.conftest import SIZES, random_packed, strided


def test_codes_are_adjacent_and_little_endian():
    codes = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 0]], dtype=torch.uint8)
    bits = sum(code << 3 * place for place, code in enumerate([1, 2, 3, 4, 5, 6, 7, 0]))
    expected = [*bits.to_bytes(3, "little"), 0, 0, 0]
    assert pack_bits(codes, 3).tolist() == [expected]
    assert reference(codes, 3).tolist() == [expected]


@pytest.mark.parametrize("size", SIZES)
def test_as_the_reference(size, bits):
    codes = random_packed(*size, bits).codes
    assert torch.equal(pack_bits(codes, bits), reference(codes, bits))


def test_codes_that_are_not_contiguous(bits):
    codes = random_packed(9, 40, bits).codes
    for other in (strided(codes), codes.t().contiguous().t(), codes[2:, 3:30]):
        assert torch.equal(pack_bits(other, bits), reference(other, bits))


def test_on_several_threads(bits):
    codes = random_packed(3000, 1001, bits).codes
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(unpack_bits(pack_bits(codes, bits), bits, 1001), codes)
    finally:
        torch.set_num_threads(threads)


@given(
    bits=st.integers(1, 8),
    rows=st.integers(0, 4),
    width=st.integers(0, 70),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=8000, deadline=None)
def test_codes_in_are_codes_out(bits, rows, width, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (rows, width), dtype=torch.uint8, generator=generator)
    assert torch.equal(unpack_bits(pack_bits(codes, bits), bits, width), codes)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_torch_knows_the_operation(bits):
    codes = random_packed(4, 20, bits).codes
    torch.library.opcheck(torch.ops.lit_gnncompress.pack_bits.default, (codes, bits))


@pytest.mark.parametrize(
    ("codes", "bits", "message"),
    [
        (torch.zeros(2, 2, dtype=torch.uint8), 0, "bits=0"),
        (torch.zeros(2, 2, dtype=torch.uint8), 9, "bits=9"),
        (torch.zeros(2, 2), 4, "codes must be a uint8 matrix"),
        (torch.zeros(2, dtype=torch.uint8), 4, "codes must be a uint8 matrix"),
        (torch.full((2, 2), 4, dtype=torch.uint8), 2, "code 4 does not fit into bits=2"),
    ],
)
def test_what_cannot_be_packed(codes, bits, message):
    with pytest.raises(ValueError, match=message):
        pack_bits(codes, bits)
