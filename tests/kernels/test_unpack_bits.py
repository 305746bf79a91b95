import pytest
import torch

from lit_gnncompress.kernels import unpack_bits
from lit_gnncompress.kernels.reference.unpack_bits import unpack_bits as reference
from tests.kernels.conftest import SIZES, random_packed, strided


@pytest.mark.parametrize("size", SIZES)
def test_all_implementations(size, bits):
    rows = random_packed(*size, bits)
    assert torch.equal(unpack_bits(rows.packed, bits, rows.width), rows.codes)
    assert torch.equal(reference(rows.packed, bits, rows.width), rows.codes)


def test_rows_that_are_not_contiguous(bits):
    rows = random_packed(9, 40, bits)
    assert torch.equal(unpack_bits(strided(rows.packed), bits, 40), rows.codes)
    assert torch.equal(unpack_bits(rows.packed[::2], bits, 40), rows.codes[::2])


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_torch_knows_the_operation(bits):
    packed = random_packed(4, 20, bits).packed
    torch.library.opcheck(torch.ops.lit_gnncompress.unpack_bits.default, (packed, bits, 20))


@pytest.mark.parametrize(
    ("packed", "bits", "width", "message"),
    [
        (torch.zeros(2, 4, dtype=torch.uint8), 9, 32, "bits=9"),
        (torch.zeros(2, 4, dtype=torch.uint8), 1, -1, "width=-1"),
        (torch.zeros(2, 4, dtype=torch.uint8), 1, 33, "rows of 4 bytes, but .* take 6"),
        (torch.zeros(2, 4), 1, 32, "packed must be a uint8 matrix"),
    ],
)
def test_what_cannot_be_unpacked(packed, bits, width, message):
    with pytest.raises(ValueError, match=message):
        unpack_bits(packed, bits, width)
